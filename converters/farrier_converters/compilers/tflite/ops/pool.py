"""Pooling. What TFLite's own pools cannot say is composed of them, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ....tflite import layout, schema
from ..builder import Builder, Held
from ..ends import channels_last
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..window import Axis, axes_of, image_of, lifted, padded, padding_of, put_image

LOWEST = float(np.finfo(np.float32).min)


def _max_pool(b: Builder, node: Node) -> None:
    node.only_output()
    if node.attr("storage_order", 0):
        raise UnsupportedError(Code.ATTRIBUTE, "storage_order 1")
    x = node.input(0)
    if x.dtype not in ("float32", "int8"):
        raise UnsupportedError(Code.DTYPE, f"a pool over {x.dtype}")
    fill = -128.0 if x.dtype == "int8" and x.quanta is None else LOWEST
    _pool(b, node, partial(_largest, fill=fill))


def _average_pool(b: Builder, node: Node) -> None:
    _pool(b, node, partial(_mean, include=bool(node.attr("count_include_pad", 0))))


def _lp_pool(b: Builder, node: Node) -> None:
    _pool(b, node, partial(_norm, power=float(node.attr("p", 2))))


def _pool(b: Builder, node: Node, reduce: Callable[..., Held]) -> None:
    """Pool over the last two axes; an axis before them is pooled on its own, which is the same for these pools."""
    x = node.input(0)
    axes = axes_of(node, x.shape, node.attr("kernel_shape"), ceil=bool(node.attr("ceil_mode", 0)))
    if x.rank in (3, 4):
        put_image(b, node.output, reduce(b, image_of(b, x), lifted(axes)))
        return
    if x.rank != 5:
        raise UnsupportedError(Code.RANK, f"a pool over {x.rank - 2} axes")
    held = b.get(x, channels_last(5))
    rows, depth, height, width, channels = held.shape
    flat = b.reshape(held, (rows * depth, height, width, channels))
    flat = reduce(b, flat, axes[1:])
    image = b.reshape(flat, (rows, depth, axes[1].out * axes[2].out, channels))
    image = reduce(b, image, [axes[0], Axis(image.shape[2], 1, 1, 1, 0, 0, image.shape[2], 0)])
    result = b.reshape(image, (rows, *(axis.out for axis in axes), channels))
    b.put(node.output, result, channels_last(5))


def _options(axes: Sequence[Axis], padding: int) -> dict[str, int]:
    height, width = axes
    return {
        "padding": padding,
        "stride_h": height.stride,
        "stride_w": width.stride,
        "filter_h": height.kernel,
        "filter_w": width.kernel,
    }


def _shape(x: Held, axes: Sequence[Axis]) -> tuple[int, ...]:
    return (x.shape[0], *(axis.out for axis in axes), x.shape[-1])


def _largest(b: Builder, x: Held, axes: Sequence[Axis], *, fill: float) -> Held:
    if any(axis.dilation != 1 for axis in axes):
        return _largest_dilated(b, padded(b, x, axes, fill), axes)
    padding = padding_of(axes)
    if padding is None:
        x, padding = padded(b, x, axes, fill), schema.VALID
    return b.op("MAX_POOL_2D", [x], _shape(x, axes), **_options(axes, padding))


def _largest_dilated(b: Builder, x: Held, axes: Sequence[Axis]) -> Held:
    """Take the maximum of one strided slice per element of the kernel."""
    height, width = axes
    result: Held | None = None
    for top in range(height.kernel):
        for left in range(width.kernel):
            begins = [top * height.dilation, left * width.dilation]
            ends = [b0 + (a.out - 1) * a.stride + 1 for b0, a in zip(begins, axes, strict=True)]
            inputs = [
                x,
                b.integers([0, *begins, 0]),
                b.integers([0, *ends, 0]),
                b.integers([1, height.stride, width.stride, 1]),
            ]
            part = b.op("STRIDED_SLICE", inputs, _shape(x, axes), begin_mask=9, end_mask=9)
            result = part if result is None else b.binary("MAXIMUM", result, part)
    if result is None:
        raise UnsupportedError(Code.SHAPE, "its kernel has no elements")
    return result


def _mean(b: Builder, x: Held, axes: Sequence[Axis], *, include: bool) -> Held:
    """Average; TFLite leaves padding out of the mean, and so does ONNX unless it is told otherwise."""
    dilated = any(axis.dilation != 1 for axis in axes)
    padding = padding_of(axes)
    if not dilated and (padding == schema.VALID or (padding == schema.SAME and not include)):
        return b.op("AVERAGE_POOL_2D", [x], _shape(x, axes), **_options(axes, padding))
    wide = padded(b, x, axes)
    result = _sum_share(b, wide, axes) if dilated else _valid_mean(b, wide, axes)
    shares = [_shares(axis, include=include) for axis in axes]
    factor = (shares[0][:, None] * shares[1][None, :]).astype(np.float32)
    return result if (factor == 1).all() else b.binary("MUL", result, b.constant(factor[None, :, :, None]))


def _valid_mean(b: Builder, x: Held, axes: Sequence[Axis]) -> Held:
    return b.op("AVERAGE_POOL_2D", [x], _shape(x, axes), **_options(axes, schema.VALID))


def _sum_share(b: Builder, x: Held, axes: Sequence[Axis]) -> Held:
    """A mean over a dilated window is a depthwise convolution with equal weights."""
    height, width = axes
    channels = x.shape[-1]
    weight = np.full(
        (1, height.kernel, width.kernel, channels), 1 / (height.kernel * width.kernel), np.float32
    )
    options = _options(axes, schema.VALID)
    return b.op(
        "DEPTHWISE_CONV_2D",
        [x, b.constant(weight), b.constant(np.zeros(channels, np.float32))],
        _shape(x, axes),
        padding=schema.VALID,
        stride_h=options["stride_h"],
        stride_w=options["stride_w"],
        dilation_h=height.dilation,
        dilation_w=width.dilation,
        multiplier=1,
    )


def _shares(axis: Axis, *, include: bool) -> np.ndarray:
    """Return kernel size over the number of elements that count, for each place of the window."""
    starts = np.arange(axis.out)[:, None] * axis.stride - axis.begin
    places = starts + np.arange(axis.kernel)[None] * axis.dilation
    low, high = (-axis.begin, axis.size + axis.declared_end) if include else (0, axis.size)
    return axis.kernel / ((places >= low) & (places < high)).sum(1)


def _norm(b: Builder, x: Held, axes: Sequence[Axis], *, power: float) -> Held:
    """The p-th root of the sum of p-th powers; the mean times the number of elements is the sum."""
    raised = b.unary("ABS", x)
    if power != 1:
        raised = b.unary("SQUARE", x) if power == 2 else b.binary("POW", raised, power)
    wide = padded(b, raised, axes)
    dilated = any(axis.dilation != 1 for axis in axes)
    mean = _sum_share(b, wide, axes) if dilated else _valid_mean(b, wide, axes)
    total = b.binary("MUL", mean, float(axes[0].kernel * axes[1].kernel))
    if power == 1:
        return total
    return b.unary("SQRT", total) if power == 2 else b.binary("POW", total, 1 / power)


def _global(name: str, b: Builder, node: Node) -> None:
    x = node.input(0)
    order = channels_last(x.rank) if x.rank > 2 else layout.identity(x.rank)
    held = b.get(x, order)
    axes = range(1, x.rank - 1)
    shape = [1 if axis in axes else size for axis, size in enumerate(held.shape)]
    b.put(node.output, b.op(name, [held, b.integers(axes)], shape, keep_dims=1), order)


def _global_lp(b: Builder, node: Node) -> None:
    x, power = node.input(0), float(node.attr("p", 2))
    order = channels_last(x.rank)
    held = b.unary("ABS", b.get(x, order))
    axes = range(1, x.rank - 1)
    shape = [1 if axis in axes else size for axis, size in enumerate(held.shape)]
    raised = held if power == 1 else b.binary("POW", held, power)
    total = b.op("SUM", [raised, b.integers(axes)], shape, keep_dims=1)
    b.put(node.output, total if power == 1 else b.binary("POW", total, 1 / power), order)


POOL: dict[str, Handler] = {
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "LpPool": _lp_pool,
    "GlobalAveragePool": partial(_global, "MEAN"),
    "GlobalMaxPool": partial(_global, "REDUCE_MAX"),
    "GlobalLpPool": _global_lp,
}
