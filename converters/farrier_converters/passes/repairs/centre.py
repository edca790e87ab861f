"""Centre activations around zero, for targets that have one symmetric scale per tensor and no zero points."""

from __future__ import annotations

from dataclasses import dataclass, replace

from farrier_contracts.errors import UsageError

from ...graph.edit import Graph
from ...graph.upgrade import CannotUpgradeError, upgrade
from ...model import Model
from ...quantize.calibrate import CalibrationSettings, observe
from ...quantize.ranges import METHODS
from ...quantize.repair import centring
from .. import Context, Pass
from ..int8 import NEWEST, OPSET


@dataclass(frozen=True)
class CentreOptions:
    """By which range method the upper end of a tensor is found: it is moved down by half of that, and cut off there."""

    method: str = "mse"

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown method."""
        if self.method not in METHODS:
            raise UsageError(f"unknown range method {self.method!r}; choose among: {', '.join(METHODS)}")


def run(model: Model, options: CentreOptions, context: Context) -> Model:
    """Return the same function with Relu results of both signs, cut off where a range would be; clean and fuse first.

    A model without such tensors comes back itself, and so does any without calibration data, or with a twin to be
    observed in its place: that has no tensors of these names. Raises InputError for data that does not fit.
    """
    if context.calibration is None or context.twin is not None:
        return model
    try:
        graph = Graph(upgrade(model, OPSET, feeds=next(context.calibration(), None), newest=NEWEST))
    except CannotUpgradeError:
        return model
    found = centring.sites(graph)
    if not found:
        return model
    settings = replace(CalibrationSettings(), folder=context.work)
    seen = observe(
        graph.build(),
        [site.name for site in found],
        batches=context.calibration,
        progress=context.progress,
        settings=settings,
    )
    for site in found:
        high = seen[site.name].range(options.method).high
        if high > 0:
            centring.centre(graph, site, high / 2)
    graph.index()
    return graph.build()


CENTRE = Pass("centre", CentreOptions, run)
