"""Remove from a graph what costs and does nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from ..fusion import TIDYING, rewrite
from ..graph.edit import Graph
from ..graph.fold import fold
from ..model import Model
from . import Context, Pass


@dataclass(frozen=True)
class CleanOptions:
    """`fold_bytes`: the largest result of constant folding, unless its inputs take more than it does."""

    fold_bytes: int = 1 << 20


def run(model: Model, options: CleanOptions, context: Context) -> Model:
    """Lift constants, fold what depends on them alone, and drop no-ops, duplicates and dead nodes.

    `context.log` hears of each rule applied.
    """
    graph = Graph(model)
    fold(graph, max_bytes=options.fold_bytes)
    _merge_duplicates(graph)
    context.tell(rewrite(graph, TIDYING))
    fold(graph, max_bytes=options.fold_bytes)
    _merge_duplicates(graph)
    return graph.build()


def _merge_duplicates(graph: Graph) -> None:
    """Keep one of several initializers with the same type, shape and bytes."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    for name, tensor in list(graph.initializers.items()):
        value = graph.constant(name)
        if value is None or value.dtype == object or graph.kept(name):
            continue
        digest = hashlib.sha256(value.tobytes()).digest()
        original = first.setdefault((tensor.data_type, tuple(tensor.dims), digest), name)
        if original != name:
            graph.rename_reads(name, original)
    graph.index()


CLEAN = Pass("clean", CleanOptions, run)
