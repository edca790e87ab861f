"""Normalizations, composed of means and products."""

from __future__ import annotations

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held, Value
from ..ends import channels_last
from ..errors import Code, UnsupportedError
from ..node import Handler, Node, axis_of
from ..operands import spread


def _batch_norm(b: Builder, node: Node) -> None:
    if node.attr("training_mode", 0) or any(v is not None and v.readers for v in node.outputs[1:]):
        raise UnsupportedError(Code.ATTRIBUTE, "batch normalization while training")
    x = node.input(0)
    order = x.native
    along = (-1, *(1,) * (x.rank - 2)) if x.rank > 1 else (-1,)
    if all(node.input(i).constant is not None for i in range(1, 5)):
        scale, shift, mean, variance = (node.constant(i).astype(np.float64) for i in range(1, 5))
        factor = scale / np.sqrt(variance + node.attr("epsilon", 1e-5))
        constants = [
            spread(b, Value("", v.shape, "float32", constant=v), x.rank, order)
            for v in (a.astype(np.float32).reshape(along) for a in (factor, shift - mean * factor))
        ]
        held = b.binary("ADD", b.binary("MUL", b.get(x, order), constants[0]), constants[1])
    else:
        held = _computed_batch_norm(b, node, order)
    b.put(node.output, held, order)


def _computed_batch_norm(b: Builder, node: Node, order: layout.Order) -> Held:
    x = node.input(0)
    scale, shift, mean, variance = (_per_channel(b, node.input(i), x.rank, order) for i in range(1, 5))
    factor = b.binary(
        "MUL", scale, b.unary("RSQRT", b.binary("ADD", variance, float(node.attr("epsilon", 1e-5))))
    )
    centred = b.binary("SUB", b.get(x, order), mean)
    return b.binary("ADD", b.binary("MUL", centred, factor), shift)


def _per_channel(b: Builder, value: Value, rank: int, order: layout.Order) -> Held:
    """Lay one number per channel along axis 1 of a tensor stored in this order."""
    channels = value.shape[0]
    if rank == 1:
        return b.get(value)
    return b.reshape(b.get(value), [channels if axis == 1 else 1 for axis in order])


def normalized(b: Builder, x: Held, places: list[int], epsilon: float) -> Held:
    """Return (x - mean) / sqrt(variance + epsilon) over these axes as stored."""
    shape = [1 if place in places else size for place, size in enumerate(x.shape)]
    mean = b.op("MEAN", [x, b.integers(places)], shape, keep_dims=1)
    centred = b.binary("SUB", x, mean)
    variance = b.op("MEAN", [b.unary("SQUARE", centred), b.integers(places)], shape, keep_dims=1)
    return b.binary("MUL", centred, b.unary("RSQRT", b.binary("ADD", variance, epsilon)))


def _instance_norm(b: Builder, node: Node) -> None:
    x = node.input(0)
    order = x.native if x.native[0] == 0 else channels_last(x.rank)
    places = [place for place, axis in enumerate(order) if axis > 1]
    held = normalized(b, b.get(x, order), places, float(node.attr("epsilon", 1e-5)))
    scale, shift = (_per_channel(b, node.input(i), x.rank, order) for i in (1, 2))
    b.put(node.output, b.binary("ADD", b.binary("MUL", held, scale), shift), order)


def _layer_norm(b: Builder, node: Node) -> None:
    """The mean and the inverse deviation are outputs too, where they are asked for."""
    x = node.input(0)
    axis = axis_of(int(node.attr("axis", -1)), x.rank)
    order = x.native
    places = [place for place, a in enumerate(order) if a >= axis]
    held, epsilon = b.get(x, order), float(node.attr("epsilon", 1e-5))
    shape = [1 if place in places else size for place, size in enumerate(held.shape)]
    mean = b.op("MEAN", [held, b.integers(places)], shape, keep_dims=1)
    centred = b.binary("SUB", held, mean)
    variance = b.op("MEAN", [b.unary("SQUARE", centred), b.integers(places)], shape, keep_dims=1)
    inverse = b.unary("RSQRT", b.binary("ADD", variance, epsilon))
    result = b.binary("MUL", centred, inverse)
    result = b.binary("MUL", result, spread(b, node.input(1), x.rank, order))
    if node.optional(2) is not None:
        result = b.binary("ADD", result, spread(b, node.input(2), x.rank, order))
    b.put(node.output, result, order)
    for value, tensor in zip(node.outputs[1:], (mean, inverse), strict=False):
        if value is not None:
            b.put(value, tensor, order)


def _rms_norm(b: Builder, node: Node) -> None:
    x = node.input(0)
    axis = axis_of(int(node.attr("axis", -1)), x.rank)
    order = x.native
    places = [place for place, a in enumerate(order) if a >= axis]
    held = b.get(x, order)
    shape = [1 if place in places else size for place, size in enumerate(held.shape)]
    square = b.op("MEAN", [b.unary("SQUARE", held), b.integers(places)], shape, keep_dims=1)
    inverse = b.unary("RSQRT", b.binary("ADD", square, float(node.attr("epsilon", 1e-5))))
    result = b.binary("MUL", b.binary("MUL", held, inverse), spread(b, node.input(1), x.rank, order))
    b.put(node.output, result, order)


def _group_norm(b: Builder, node: Node) -> None:
    """Channels are cut into groups where they lie; from operator set 21 on, scales are per channel."""
    x, groups = node.input(0), int(node.attr("num_groups"))
    if node.opset < 21:
        raise UnsupportedError(Code.ATTRIBUTE, "scales per group (operator set 18)")
    order = channels_last(x.rank)
    held = b.get(x, order)
    rows, *sizes, channels = held.shape
    area = int(np.prod(sizes))
    cut = b.reshape(held, (rows, area, groups, channels // groups))
    result = b.reshape(normalized(b, cut, [1, 3], float(node.attr("epsilon", 1e-5))), held.shape)
    for name, position in (("MUL", 1), ("ADD", 2)):
        result = b.binary(name, result, b.get(node.input(position)))
    b.put(node.output, result, order)


def _mean_variance(b: Builder, node: Node) -> None:
    """MeanVarianceNormalization: over the given axes, with 1e-9 added to the deviation."""
    x = node.input(0)
    axes = [axis_of(int(a), x.rank) for a in node.attr("axes", [0, 2, 3])]
    order = x.native
    held = b.get(x, order)
    places = [place for place, a in enumerate(order) if a in axes]
    shape = [1 if place in places else size for place, size in enumerate(held.shape)]
    mean = b.op("MEAN", [held, b.integers(places)], shape, keep_dims=1)
    centred = b.binary("SUB", held, mean)
    variance = b.op("MEAN", [b.unary("SQUARE", centred), b.integers(places)], shape, keep_dims=1)
    deviation = b.binary("ADD", b.unary("SQRT", variance), 1e-9)
    b.put(node.output, b.binary("DIV", centred, deviation), order)


def _lp_normalization(b: Builder, node: Node) -> None:
    x, power = node.input(0), int(node.attr("p", 2))
    order = x.native
    place = order.index(axis_of(int(node.attr("axis", -1)), x.rank))
    held = b.get(x, order)
    shape = [1 if p == place else size for p, size in enumerate(held.shape)]
    raised = b.unary("ABS" if power == 1 else "SQUARE", held)
    total = b.op("SUM", [raised, b.integers([place])], shape, keep_dims=1)
    total = total if power == 1 else b.unary("SQRT", total)
    zero = b.binary("EQUAL", total, 0.0, "bool")
    safe = b.op("SELECT_V2", [zero, b.constant(1.0, "float32"), total], shape, "float32")
    b.put(node.output, b.binary("DIV", held, safe), order)


def _local_response(b: Builder, node: Node) -> None:
    """TFLite's window has an odd size and is centred; its alpha is ONNX's over the size."""
    x, size = node.input(0), int(node.attr("size"))
    if x.rank != 4 or size % 2 == 0:
        raise UnsupportedError(Code.ATTRIBUTE, "a window of even size, or no image")
    options = {
        "radius": size // 2,
        "bias": float(node.attr("bias", 1.0)),
        "alpha": float(node.attr("alpha", 1e-4)) / size,
        "beta": float(node.attr("beta", 0.75)),
    }
    order = channels_last(4)
    b.put(node.output, b.unary("LOCAL_RESPONSE_NORMALIZATION", b.get(x, order), **options), order)


NORM: dict[str, Handler] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _local_response,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _lp_normalization,
    "MeanVarianceNormalization": _mean_variance,
    "RMSNormalization": _rms_norm,
}
