"""Cross-layer equalisation: neighbouring layers share out the ranges of their weights, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from ...graph.edit import Graph
from ...graph.types import infer
from ...model import Model
from ...quantize.repair import balance, groups
from ...quantize.repair.equalization import equalize
from .. import Context, Pass


@dataclass(frozen=True)
class EqualizeOptions:
    """How often the pairs of layers are gone over without calibration data; scales settle after a few rounds."""

    rounds: int = 20


def run(model: Model, options: EqualizeOptions, context: Context) -> Model:
    """Return an equal graph (to float32 rounding) that loses less with one scale per weight tensor; fuse first.

    With calibration data, activations are weighed as well, and residual connections are no obstacle. Without,
    weights alone are made alike. Raises InputError for data that does not fit.
    """
    graph = Graph(model)
    if context.calibration is None:
        equalize(graph, rounds=options.rounds)
        return graph.build()
    found = groups.find(graph)
    if not found.channels:
        return model
    names = balance.measured(found)
    twin = context.twin if context.twin is not None and set(names) <= set(infer(context.twin.proto)) else None
    extents = balance.measure(twin or model, names, context.calibration)
    groups.scale(graph, found, balance.balance(graph, found, extents))
    return graph.build()


EQUALIZE = Pass("equalize", EqualizeOptions, run)
