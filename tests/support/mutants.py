"""Graphs with wrong parts: nodes taken out, doubled, rewired; what contradicts the rest."""

from __future__ import annotations

from collections.abc import Sized

import numpy as np
import onnx


def _place(items: Sized, random: np.random.Generator) -> int:
    return int(random.integers(len(items)))


def _node(graph: onnx.GraphProto, random: np.random.Generator) -> onnx.NodeProto:
    return graph.node[_place(graph.node, random)]


def _remove(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    graph.node.remove(_node(graph, random))


def _double(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    graph.node.append(_node(graph, random))


def _rewire(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    node, other = _node(graph, random), _node(graph, random)
    if node.input:
        node.input[_place(node.input, random)] = other.output[0]


def _rename(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    _node(graph, random).op_type = str(
        random.choice(["Gemm", "Concat", "Transpose", "LSTM", "Slice", "Softmax"])
    )


def _resize(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    dims = graph.input[0].type.tensor_type.shape.dim
    dims[_place(dims, random)].dim_value = int(random.choice([0, 1, -5, 3, 1 << 33]))


def _reshape(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    tensor = graph.initializer[_place(graph.initializer, random)]
    if tensor.dims:
        del tensor.dims[_place(tensor.dims, random)]


def _retype(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    graph.initializer[_place(graph.initializer, random)].data_type = int(random.integers(0, 30))


def _unset(graph: onnx.GraphProto, random: np.random.Generator) -> None:
    node = _node(graph, random)
    if node.attribute:
        del node.attribute[_place(node.attribute, random)]


def spoil(proto: onnx.ModelProto, random: np.random.Generator) -> None:
    """Do one to three wrong things to a graph, in place."""
    for _ in range(random.integers(1, 4)):
        _WRONG[random.integers(len(_WRONG))](proto.graph, random)


_WRONG = (_remove, _double, _rewire, _rename, _resize, _reshape, _retype, _unset)
