"""Cross-layer equalisation: neighbouring layers share out the ranges of their weights, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass

from ..graph.edit import Graph
from ..model import Model
from ..quantize.repair.equalization import equalize
from . import Context, Pass


@dataclass(frozen=True)
class EqualizeOptions:
    """How often the pairs of layers are gone over; scales settle after a few rounds."""

    rounds: int = 20


def run(model: Model, options: EqualizeOptions, _context: Context) -> Model:
    """Return an equal graph (to float32 rounding) that loses less with one scale per weight tensor; fuse first."""
    graph = Graph(model)
    equalize(graph, rounds=options.rounds)
    return graph.build()


EQUALIZE = Pass("equalize", EqualizeOptions, run)
