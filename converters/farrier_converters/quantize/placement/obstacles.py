"""Why an operator of a kind that integer kernels exist for has none after all; pure functions on a graph's nodes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from ...graph.bounds import bounds
from ...graph.edit import Graph, attribute, standard
from ...graph.types import FLOAT, TensorType
from .. import rules
from .spread import spreading_operator

STEM_CHANNELS = 4  # a convolution of so few input channels reads an image, or something like it


def is_float(types: Mapping[str, TensorType], name: str) -> bool:
    """Say whether a tensor is known to be float32."""
    kind = types.get(name)
    return kind is not None and kind.dtype == FLOAT


def linear(graph: Graph, types: Mapping[str, TensorType], node: onnx.NodeProto, *, stem: bool) -> str | None:
    """Return why a multiply-accumulate operator has to stay in float, or None.

    Without `stem`, a convolution of at most `STEM_CHANNELS` input channels stays.
    """
    if not all(is_float(types, name) for name in (node.input[0], node.output[0])):
        return "it does not compute in float32"
    obstacle = _weights(graph, types, node)
    if obstacle is None and not stem and standard(node, "Conv"):
        channels = types[node.input[1]].shape
        if channels and (channels[1] or 0) * attribute(node, "group", 1) <= STEM_CHANNELS:
            return rules.STEM
    spreading = spreading_operator(graph, node) if obstacle is None else None
    return obstacle if spreading is None else rules.SPREAD.format(op=spreading)


def carrier(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return why an operator that moves or selects values cannot do so with integers, or None."""
    if standard(node, "Pad"):
        fill = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
        if attribute(node, "mode", b"constant") == b"constant" and (
            fill is None or (fill.any() and not _is_least(graph, node.input[0], fill))
        ):
            return "it pads with something other than zero"
    if standard(node, "Resize") and attribute(node, "mode", b"nearest") == b"cubic":
        return "cubic interpolation leaves the range of its input"
    if standard(node, "MaxPool") and len(node.output) > 1 and node.output[1]:
        return "it returns indices"
    return None


def _is_least(graph: Graph, name: str, fill: np.ndarray) -> bool:
    """Whether a value is the least that a tensor can take on: the quantizer's range reaches as far."""
    maker = graph.producer.get(name)
    ends = None if maker is None else bounds(graph, maker)
    return ends is not None and fill.size == 1 and ends[0] == float(fill.reshape(()))


def _weights(graph: Graph, types: Mapping[str, TensorType], node: onnx.NodeProto) -> str | None:
    weight = graph.constant(node.input[1])
    if weight is None:
        if node.op_type == "MatMul" and is_float(types, node.input[1]):
            return None
        maker = graph.producer.get(node.input[1])
        stored = maker is not None and standard(maker, "DequantizeLinear")
        return rules.STORED if stored else rules.NOT_CONSTANT
    if weight.dtype != np.float32 or graph.constant(node.input[0]) is not None:
        return "it does not multiply activations by float32 weights"
    if node.op_type == "MatMul":
        return None if weight.ndim == 2 else "its weights are not a matrix"
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        return "the groups of a transposed convolution share its output channels' axis"
    return _bias(graph, node, weight)


def _bias(graph: Graph, node: onnx.NodeProto, weight: np.ndarray) -> str | None:
    if len(node.input) > 2 and node.input[2]:
        value = graph.constant(node.input[2])
        if value is None or value.dtype != np.float32:
            return "its bias is not constant"
        if node.op_type == "Gemm":
            channels = weight.shape[0 if attribute(node, "transB", 0) else 1]
            if value.size not in (1, channels) or value.shape[-1:] not in ((), (1,), (channels,)):
                return "its bias differs from row to row"
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        return "it scales its operands"
    return None
