"""Cross-layer equalisation of weights. Source: Nagel et al. 2019, arXiv 1906.04721, section 4.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, replace, standard

LINEAR = ("Conv", "Gemm")
# f(s x) = s f(x) for s > 0, channel by channel. The bounds of a Clip would have to move with each channel: it ends a
# pair.
HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")
SETTLED = 1e-3  # of all scales in a round
SCALE_LIMITS = (1e-4, 1e4)


@dataclass(frozen=True)
class Pair:
    """Two layers, with nothing between them but operators that scale as their input does, channel by channel."""

    first: onnx.NodeProto
    between: tuple[onnx.NodeProto, ...]
    second: onnx.NodeProto

    @property
    def tensors(self) -> list[str]:
        """What flows between the two; the last one is what the second layer reads."""
        return [node.output[0] for node in (self.first, *self.between)]

    def divide(self, graph: Graph, scale: np.ndarray) -> None:
        """Divide the channels of what flows between by `scale` [C]; the second layer's weights take it up."""
        first, second = _weight(graph, self.first), _weight(graph, self.second)
        _store(graph, self.first, 1, first / _along(scale, _axis(self.first), first.ndim))
        bias = graph.constant(self.first.input[2]) if len(self.first.input) > 2 else None
        if bias is not None:
            _store(graph, self.first, 2, bias / scale)
        axis = _input_axis(graph, self.second)
        _store(graph, self.second, 1, second * _along(scale, axis, second.ndim))


def equalize(graph: Graph, *, rounds: int) -> int:
    """Scale pairs of layers against each other until both have the same weight range in every shared channel.

    The graph computes the same as before. Scaled tensors get new names. Returns the number of pairs.
    """
    pairs = find_pairs(graph)
    own_constants(graph, pairs)
    for _ in range(rounds):
        if max((_balance(graph, pair) for pair in pairs), default=0.0) < SETTLED:
            break
    for pair in pairs:
        for node, reader in zip((pair.first, *pair.between), (*pair.between, pair.second), strict=True):
            name = graph.fresh(f"{node.output[0]}_equalized")
            replace(reader.input, node.output[0], name)
            node.output[0] = name
    graph.index()
    return len(pairs)


def find_pairs(graph: Graph) -> list[Pair]:
    """Return the pairs of layers in the graph's order."""
    return [pair for node in graph.nodes if (pair := _pair(graph, node)) is not None]


def own_constants(graph: Graph, pairs: Sequence[Pair]) -> None:
    """Give each layer weights and biases of its own, so that no other node's change with them."""
    for node in (node for pair in pairs for node in (pair.first, pair.second)):
        for position in range(1, len(node.input)):
            value = graph.constant(node.input[position]) if node.input[position] else None
            if value is not None:
                node.input[position] = graph.add_constant(f"{node.input[position]}_equalized", value)


def _pair(graph: Graph, node: onnx.NodeProto) -> Pair | None:
    if not scalable(graph, node):
        return None
    between: list[onnx.NodeProto] = []
    name = node.output[0]
    while (reader := graph.only_reader(name)) is not None and standard(reader, *HOMOGENEOUS):
        if len(reader.output) != 1:
            return None
        between.append(reader)
        name = reader.output[0]
    if reader is None or reader.input[0] != name or not scalable(graph, reader):
        return None
    channels = _weight(graph, node).shape[_axis(node)]
    grouped = standard(reader, "Conv") and attribute(reader, "group", 1) not in (1, channels)
    depthwise = standard(reader, "Conv") and attribute(reader, "group", 1) == channels > 1
    if grouped or (depthwise and _weight(graph, reader).shape[0] != channels):
        return None
    return Pair(node, tuple(between), reader) if _inputs(graph, reader).size == channels else None


def scalable(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node is a layer with constant float32 weights, and a bias with one value per result."""
    if not standard(node, *LINEAR) or attribute(node, "transA", 0):
        return False
    constants = [graph.constant(name) for name in node.input[1:] if name]
    plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
    floats = all(c is not None and c.dtype == np.float32 for c in constants)
    bias = constants[1] if floats and len(constants) > 1 else None
    fits = bias is None or bias.shape == (constants[0].shape[_axis(node)],)  # type: ignore[union-attr]
    return plain and floats and bool(constants) and fits


def _weight(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    value = graph.constant(node.input[1])
    assert value is not None
    return value


def _axis(node: onnx.NodeProto) -> int:
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _input_axis(graph: Graph, node: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        return 1 - _axis(node)
    return 0 if attribute(node, "group", 1) > 1 else 1


def _largest(weight: np.ndarray, axis: int) -> np.ndarray:
    return np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a != axis))


def _inputs(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    return _largest(_weight(graph, node), _input_axis(graph, node))


def _balance(graph: Graph, pair: Pair) -> float:
    """Move scale between two layers once; return how far the scales were from one."""
    first = _weight(graph, pair.first)
    ours, theirs = _largest(first, _axis(pair.first)), _inputs(graph, pair.second)
    live = (ours > 0) & (theirs > 0)
    ratio = np.sqrt(np.where(live, ours, 1) / np.where(live, theirs, 1).astype(np.float64))
    scale = np.clip(ratio, *SCALE_LIMITS)
    pair.divide(graph, scale)
    return float(np.abs(scale - 1).max())


def _store(graph: Graph, node: onnx.NodeProto, position: int, value: np.ndarray) -> None:
    name = node.input[position]
    graph.initializers[name] = onnx.numpy_helper.from_array(
        np.ascontiguousarray(value, dtype=np.float32), name
    )


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])
