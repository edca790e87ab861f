"""Remove from a graph what costs and does nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import onnx

from ..graph.edit import Graph, attribute, standard
from ..graph.fold import fold
from ..model import Model
from . import Context, Pass


@dataclass(frozen=True)
class CleanOptions:
    """`fold_bytes`: the largest result of constant folding, unless its inputs take more than it does."""

    fold_bytes: int = 1 << 20


def run(model: Model, options: CleanOptions, _context: Context) -> Model:
    """Lift constants, fold what depends on them alone, and drop no-ops, duplicates and dead nodes."""
    graph = Graph(model)
    _drop_no_ops(graph)
    fold(graph, max_bytes=options.fold_bytes)
    _merge_duplicates(graph)
    return graph.build()


def _drop_no_ops(graph: Graph) -> None:
    """Let readers of Identity and of Dropout at inference read its input."""
    for node in [n for n in graph.nodes if standard(n, "Identity", "Dropout")]:
        source, result = node.input[0], node.output[0]
        extra = any(graph.readers.get(name) or graph.kept(name) for name in node.output[1:] if name)
        if extra or graph.kept(result) or _training(graph, node):
            continue
        graph.rename_reads(result, source)
        graph.remove([node])
        graph.index()


def _training(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type != "Dropout":
        return False
    if graph.opset < 7:
        return not attribute(node, "is_test", 0)
    if len(node.input) < 3 or not node.input[2]:
        return False
    mode = graph.constant(node.input[2])
    return mode is None or bool(mode)


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
