"""Compute what depends on constants alone."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..model import subgraphs
from . import run
from .edit import Graph, standard
from .partial import INTEGERS, RULES, Evaluator
from .types import TensorType, infer

RANDOM = (
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
    "Bernoulli",
    "Multinomial",
)
# Folding these would undo quantization or keep a copy of what is stored more tightly.
OPAQUE = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "BitShift", "BitwiseAnd")
SHORT = (  # types that weights are stored in: a Cast from them makes the file larger
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
    onnx.TensorProto.INT8,
    onnx.TensorProto.UINT8,
    onnx.TensorProto.INT4,
    onnx.TensorProto.UINT4,
    onnx.TensorProto.FLOAT8E4M3FN,
    onnx.TensorProto.FLOAT8E5M2,
)
SHORT_ELEMENTS = 256  # and more, for such a Cast to matter
MAX_ROUNDS = 16  # each finds the shapes that the one before made known


def fold(graph: Graph, *, max_bytes: int) -> None:
    """Replace nodes of constant inputs by initializers, unless one result would take more than `max_bytes`.

    A larger result is folded too where it is no larger than what it was computed from. Random operators stay,
    and so does whatever ONNX Runtime cannot compute on its own.
    """
    tried: set[int] = set()
    for _ in range(MAX_ROUNDS):
        count = len(graph.nodes)
        _fold_shapes(graph, infer(graph.without_weights()))
        _fold_values(graph, tried, max_bytes)
        if len(graph.nodes) == count:
            break


def _fold_values(graph: Graph, tried: set[int], max_bytes: int) -> None:
    for node in graph.ordered():
        if id(node) in tried or not _foldable(graph, node):
            continue
        tried.add(id(node))
        results = compute(graph, node, max_bytes=max_bytes)
        if results is not None:
            for name, value in zip(node.output, results, strict=False):
                graph.initializers[name] = numpy_helper.from_array(value, name)
            graph.remove([node])
    graph.index()


def _foldable(graph: Graph, node: onnx.NodeProto) -> bool:
    return (
        bool(node.output)
        and all(name in graph.initializers for name in node.input if name)
        and not standard(node, *RANDOM, *OPAQUE)
        and not _widens(graph, node)
        and not any(True for _ in subgraphs(node))
        and not any(name in graph.outputs for name in node.output)
    )


def _widens(graph: Graph, node: onnx.NodeProto) -> bool:
    tensor = graph.initializers.get(node.input[0]) if standard(node, "Cast", "Pad") else None
    return tensor is not None and tensor.data_type in SHORT and math.prod(tensor.dims) >= SHORT_ELEMENTS


def compute(graph: Graph, node: onnx.NodeProto, *, max_bytes: int) -> list[np.ndarray] | None:
    """Return what a node makes of initializers; None where ONNX Runtime cannot, or a result is too large."""
    tensors = [graph.initializers[name] for name in dict.fromkeys(node.input) if name]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    if len(outputs) != len(node.output):
        return None
    proto = helper.make_model(
        helper.make_graph([node], "fold", [], outputs, initializer=tensors),
        opset_imports=list(graph.model.proto.opset_import),
        ir_version=max(graph.model.proto.ir_version, 7),
    )
    types = infer(proto)
    limit = max(max_bytes, sum(len(t.raw_data) for t in tensors))
    for value in outputs:
        size = _size_bytes(types.get(value.name))
        if size is None or size > limit:
            return None
        value.CopyFrom(helper.make_tensor_value_info(value.name, types[value.name].dtype, None))
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    return run.try_once(proto, {})


def _size_bytes(kind: TensorType | None) -> int | None:
    if kind is None or kind.shape is None or None in kind.shape or kind.dtype == onnx.TensorProto.STRING:
        return None
    elements = int(np.prod([float(d or 0) for d in kind.shape]))
    return elements * helper.tensor_dtype_to_np_dtype(kind.dtype).itemsize


def _fold_shapes(graph: Graph, types: dict[str, TensorType]) -> None:
    """Replace what follows from dimensions that are known, though others of the same shape may be free."""
    evaluator = Evaluator(graph, types)
    for node in [n for n in graph.nodes if standard(n, *RULES)]:
        name = node.output[0]
        kind = types.get(name)
        if kind is None or kind.dtype not in INTEGERS or name in graph.outputs:
            continue
        sizes = evaluator.sizes(name)
        known = None if sizes is None else sizes.known
        if known is None or sizes is None:
            continue
        value = np.array(known if sizes.vector else known[0], helper.tensor_dtype_to_np_dtype(kind.dtype))
        graph.initializers[name] = numpy_helper.from_array(value, name)
        graph.remove([node])
    graph.index()
