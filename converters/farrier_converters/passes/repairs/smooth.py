"""SmoothQuant: outlier channels of activations are divided down, and the weights behind them multiplied up."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import UsageError

from ...graph.edit import Graph
from ...graph.types import infer
from ...model import Model
from ...quantize.reasons import set_reason
from ...quantize.repair import smoothing
from ...quantize.repair.smoothing import Site
from ...quantize.rules import NOT_SMOOTHED
from .. import Context, Pass


@dataclass(frozen=True)
class SmoothOptions:
    """How much of an outlier the weights take over, 0 to 1, and whether a Mul may be added for it.

    Without `explicit` a tensor is smoothed only where a layer norm makes it and linear layers alone read it: then it
    costs nothing at run time.
    """

    strength: float = 0.5
    explicit: bool = False

    def __post_init__(self) -> None:
        """Raise UsageError for a strength that means nothing."""
        if not 0 <= self.strength <= 1:
            raise UsageError(f"strength has to be 0 to 1, not {self.strength!r}")


def run(model: Model, options: SmoothOptions, context: Context) -> Model:
    """Return an equal graph (to float32 rounding) whose linear layers lose less in INT8; clean and fuse first.

    A model without such layers comes back itself; on a layer that is left, the reason is noted. Raises UsageError
    where there is no calibration data, InputError for data that does not fit.
    """
    if context.calibration is None:
        raise UsageError("smoothing needs calibration data; give some with --data or --calib")
    graph = Graph(model)
    found = smoothing.sites(graph)
    if not found:
        return model
    peaks = _peaks(model, found, context)
    for site in found:
        factor = smoothing.factors(graph, site, peaks[site.name], options.strength)
        if not smoothing.smooth(graph, site, factor, explicit=options.explicit):
            for node in site.readers:
                set_reason(node, NOT_SMOOTHED.format(name=site.name))
    graph.index()
    return graph.build()


def _peaks(model: Model, found: list[Site], context: Context) -> dict[str, np.ndarray]:
    """Return the peaks of each site's tensor, of the context's twin where that has it."""
    assert context.calibration is not None
    channels = {site.name: site.channels for site in found}
    shared = set() if context.twin is None else channels.keys() & set(infer(context.twin.proto))
    peaks: dict[str, np.ndarray] = {}
    for source, names in ((model, channels.keys() - shared), (context.twin, shared)):
        if source is not None and names:
            some = {name: count for name, count in channels.items() if name in names}
            peaks |= smoothing.peaks(source, some, context.calibration)
    return peaks


SMOOTH = Pass("smooth", SmoothOptions, run)
