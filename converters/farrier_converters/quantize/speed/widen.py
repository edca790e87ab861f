"""Give convolutions the numbers of channels that ONNX Runtime's integer kernels are fast at: zeros change no result.

Those kernels gather input channels in fours (other numbers byte by byte, at half the speed) and compute sixteen
output channels at a time (fewer at half the speed). So a tensor between two convolutions gets channels of zeros that
the second one weighs with zero, and any other input of a convolution a padding of zeros.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, standard
from ...graph.types import TensorType, infer
from .costs import BLOCK, PACK

# What may stand between: each channel by itself, finite for a channel of zeros, and with no parameters per channel.
CHANNELWISE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "MaxPool", "AveragePool")
OPSET = 11  # the first whose Pad takes the amounts as an input


def widen(graph: Graph, chosen: frozenset[str]) -> None:
    """Widen, in place, around the convolutions whose first output is in `chosen`."""
    if graph.opset < OPSET:
        return
    types = infer(graph.without_weights())
    padded: dict[tuple[str, int], str] = {}
    for node in [n for n in graph.nodes if standard(n, "Conv") and n.output[0] in chosen]:
        weight = _weights(graph, node)
        if weight is None or math.prod(weight.shape[2:]) == 1:
            continue
        maker = _maker(graph, node.input[0])
        if maker is not None and maker.output[0] in chosen and _weights(graph, maker) is not None:
            _widen_between(graph, maker, node)
        elif weight.shape[1] % PACK:
            _pad(graph, node, padded, types)


def feeds_convolution(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a convolution that `widen` looks at is the only one to read what a node makes."""
    reader = graph.only_reader(node.output[0])
    while reader is not None and standard(reader, *CHANNELWISE):
        reader = graph.only_reader(reader.output[0])
    weight = None if reader is None or not standard(reader, "Conv") else _weights(graph, reader)
    return weight is not None and math.prod(weight.shape[2:]) > 1


def _weights(graph: Graph, node: onnx.NodeProto) -> np.ndarray | None:
    """Return the weights of a convolution that may be widened: ungrouped, with constant float parameters."""
    values = [graph.constant(name) for name in node.input[1:] if name]
    plain = standard(node, "Conv") and attribute(node, "group", 1) == 1
    return values[0] if plain and all(v is not None and v.dtype == np.float32 for v in values) else None


def _maker(graph: Graph, name: str) -> onnx.NodeProto | None:
    """Return the node that makes a tensor's channels, when nothing else reads them on the way."""
    while graph.only_reader(name) is not None:
        node = graph.producer.get(name)
        if node is None or not standard(node, *CHANNELWISE) or len(node.output) > 1:
            return node
        name = node.input[0]
    return None


def _widen_between(graph: Graph, maker: onnx.NodeProto, reader: onnx.NodeProto) -> None:
    before, after = _weights(graph, maker), _weights(graph, reader)
    assert before is not None
    assert after is not None
    channels = before.shape[0]
    partial = channels < BLOCK and math.prod(before.shape[2:]) > 1
    extra = (BLOCK if partial else -(-channels // PACK) * PACK) - channels
    if not extra:
        return
    _replace(graph, maker, 1, _grown(before, 0, extra))
    if len(maker.input) > 2 and maker.input[2]:
        bias = graph.constant(maker.input[2])
        assert bias is not None
        _replace(graph, maker, 2, _grown(bias, 0, extra))
    _replace(graph, reader, 1, _grown(after, 1, extra))


def _pad(
    graph: Graph, node: onnx.NodeProto, padded: dict[tuple[str, int], str], types: dict[str, TensorType]
) -> None:
    weight, source = _weights(graph, node), node.input[0]
    kind = types.get(source)
    if weight is None or kind is None or kind.shape is None:
        return
    extra = -weight.shape[1] % PACK
    if (source, extra) not in padded:
        amounts = np.zeros((2, weight.ndim), np.int64)
        amounts[1, 1] = extra
        name = graph.fresh(f"{source}_padded")
        graph.add_node("Pad", [source, graph.add_constant(f"{source}_pads", amounts.reshape(-1))], name)
        padded[source, extra] = name
    node.input[0] = padded[source, extra]
    _replace(graph, node, 1, _grown(weight, 1, extra))
    graph.index()


def _grown(values: np.ndarray, axis: int, extra: int) -> np.ndarray:
    return np.pad(values, [(0, extra if a == axis else 0) for a in range(values.ndim)])


def _replace(graph: Graph, node: onnx.NodeProto, position: int, value: np.ndarray) -> None:
    node.input[position] = graph.add_constant(f"{node.input[position]}_wide", value)
