"""Operators with weights, in integers: sums in 32 bits of products in 8, with a bias in the scale of the sums."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..builder import Builder, Value
from ..node import Handler, Node
from ..ops.conv import CONV
from ..ops.deconv import DECONV
from ..ops.matrix import MATRIX, source_of
from ..quanta import Quanta
from .conversions import integers

BIAS_LIMIT = (1 << 31) - 1  # of an int32
SCALE_TOLERANCE = 1e-5  # relative, between the scale that a graph gives a bias and that of the sums
INT8_ACCUMULATES = "its weights have a zero point, or a scale along an axis that kernels do not take"


def obstacle(node: Node) -> str | None:
    """Return why an operator with weights has to compute in float, or None."""
    x, weight = node.input(0), node.input(1)
    if weight.constant is None:
        return None if node.op == "MatMul" and weight.quanta is not None else "its weights are computed"
    if node.op == "MatMul" and weight.rank != 2:
        return _of_two(weight)
    held = weight.integers
    if x.constant is not None or held is None or held.quanta is None or held.dtype != "int8":
        return "its weights are not stored as integers of 8 bits"
    if not held.quanta.centred or not (
        held.quanta.single or held.quanta.axis % weight.rank == channel_axis(node)
    ):
        return INT8_ACCUMULATES
    return _shape_obstacle(node) or _bias_obstacle(node)


def _of_two(weight: Value) -> str | None:
    return None if weight.integers is not None else "its weights are not stored as integers of 8 bits"


def _shape_obstacle(node: Node) -> str | None:
    if node.op == "Gemm" and (
        node.attr("alpha", 1.0) != 1 or node.attr("beta", 1.0) != 1 or node.attr("transA", 0)
    ):
        return "it scales or transposes its operands"
    if node.op in ("Conv", "ConvTranspose") and node.input(0).rank not in (3, 4):
        return "integer kernels convolve over one or two axes"
    if node.op == "ConvTranspose":
        if node.attr("group", 1) != 1 and not _weights(node).scale.single:
            return "the groups of a transposed convolution share its output channels' axis"
        if node.optional(2) is not None and (
            node.attr("output_padding") and any(node.attr("output_padding"))
        ):
            return "what is put on beyond its product would lack the bias"
    return None


def _bias_obstacle(node: Node) -> str | None:
    if node.op == "MatMul" or node.optional(2) is None:
        return None
    bias = node.input(2)
    if bias.constant is None:
        return "its bias is computed"
    if bias.constant.size not in (1, channels(node)) or (
        bias.rank > 1 and bias.shape[-1] != bias.constant.size
    ):
        return "its bias differs from row to row"
    sums = np.float64(_sum_scales(node))
    if not (np.abs(bias.constant.ravel() / sums) <= BIAS_LIMIT).all():
        return "its bias does not fit 32 bits in the scale of its sums"
    return None


def channel_axis(node: Node) -> int:
    """Return the axis of the weights, in the graph, along which results are independent."""
    if node.op == "Conv":
        return 0
    if node.op == "ConvTranspose":
        return 1
    return 0 if node.attr("transB", 0) else node.input(1).rank - 1


def channels(node: Node) -> int:
    """Return how many results are independent of one another."""
    group = node.attr("group", 1) if node.op == "ConvTranspose" else 1
    return node.input(1).shape[channel_axis(node)] * group


def _weights(node: Node) -> Value:
    held = node.input(1).integers
    if held is None:
        raise ValueError(f"{node.name} has no integer weights")
    return held


def _sum_scales(node: Node) -> np.ndarray:
    """Return the scales of the sums, in float32: those of the input times those of the weights."""
    weight = np.array(_weights(node).scale.scales, np.float32)
    return np.float32(node.input(0).scale.scales[0]) * weight


def bias_of(node: Node) -> Value:
    """Return the bias as int32 in the scale of the sums: the graph's own integers where they are in that."""
    count, scales = channels(node), _sum_scales(node)
    given = node.optional(2) if node.op != "MatMul" else None
    spread = np.broadcast_to(scales, (count,))
    sums = Quanta(tuple(spread.tolist()) if scales.size > 1 else (float(scales[0]),), (0,) * scales.size)
    if given is None or given.constant is None:
        return Value(f"{node.name}/bias", (count,), "int32", constant=np.zeros(count, np.int32), quanta=sums)
    held, stored = given.integers, None
    if held is not None and held.quanta is not None and held.constant is not None:
        own = np.array(held.quanta.scales, np.float64)
        if own.size in (1, scales.size) and np.allclose(own, scales, rtol=SCALE_TOLERANCE, atol=0):
            stored = held.constant
    if stored is None:
        stored = np.rint(given.constant.reshape(-1).astype(np.float64) / scales.astype(np.float64))
    whole = np.broadcast_to(stored.reshape(-1), (count,)).astype(np.int32)
    return Value(given.name, (count,), "int32", constant=whole, quanta=sums)


def _convolve(handler: Handler, b: Builder, node: Node, output: Value) -> None:
    x = node.input(0)
    plain = node.op == "ConvTranspose" and node.optional(2) is None  # older runtimes know no bias there
    bias = None if plain else bias_of(node)
    handler(b, node.having((integers(b, x, x.scale), _weights(node), bias), (output,)))


def _dense(b: Builder, node: Node, output: Value) -> None:
    """A dense layer: FULLY_CONNECTED wants its weights as [out, in]."""
    x, weight = node.input(0), _weights(node)
    matrix = np.asarray(weight.constant)
    held, matrix = source_of(b, integers(b, x, x.scale), matrix.T if node.attr("transB", 0) else matrix)
    stored = b.constant(matrix.T, quanta=replace(weight.scale, axis=0))
    options = {"keep_dims": 1} if held.rank != 2 else {}
    inputs = [held, stored, b.get(bias_of(node))]
    b.put(output, b.op("FULLY_CONNECTED", inputs, (*held.shape[:-1], matrix.shape[1]), **options))


def _product(b: Builder, node: Node, output: Value) -> None:
    """A product of two tensors of activations."""
    both = [integers(b, value, value.scale) for value in (node.input(0), node.input(1))]
    MATRIX["MatMul"](b, node.having(both, (output,)))


def lower_linear(b: Builder, node: Node, output: Value) -> None:
    """Append an operator for which `obstacle` found nothing."""
    if node.op in ("Conv", "ConvTranspose"):
        _convolve((CONV | DECONV)[node.op], b, node, output)
    elif node.op == "MatMul" and (node.input(1).constant is None or node.input(1).rank != 2):
        _product(b, node, output)
    else:
        _dense(b, node, output)
