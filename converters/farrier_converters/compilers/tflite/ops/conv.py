"""Convolutions, plain, grouped and depthwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....tflite import schema
from ....tflite.layout import BatchError, Order, free
from ..builder import Builder, Held, Value
from ..ends import channels_last
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..window import Axis, axes_of, image_of, lifted, padded, padding_of, put_image

OHWI: Order = (0, 2, 3, 1)
IHWO: Order = (1, 2, 3, 0)
SPLIT_GROUPS = 64  # more groups than this are not cut into convolutions of their own


def _conv(b: Builder, node: Node) -> None:
    x, weight = node.input(0), weights(b, node)
    axes = axes_of(node, x.shape, node.attr("kernel_shape") or node.input(1).shape[2:])
    if x.rank == 5:
        _conv3d(b, node, axes)
        return
    if x.rank not in (3, 4):
        raise UnsupportedError(Code.RANK, f"a convolution over {x.rank - 2} axes")
    group, axes = node.attr("group", 1), lifted(axes)
    held, padding = _input(b, image_of(b, x), axes)
    channels, depth = weight.shape[:2]
    shape = (held.shape[0], *(axis.out for axis in axes), channels)
    bias = bias_of(b, node, channels)
    if group == 1:
        result = b.op("CONV_2D", [held, b.get(weight, OHWI), bias], shape, **_sliding(axes, padding))
    elif depth == 1:
        options = {**_sliding(axes, padding), "multiplier": channels // held.shape[-1]}
        result = b.op("DEPTHWISE_CONV_2D", [held, b.get(weight, IHWO), bias], shape, **options)
    else:
        result = _grouped(b, held, b.get(weight, OHWI), bias, shape, _sliding(axes, padding), group)
    put_image(b, node.output, result)


def weights(b: Builder, node: Node) -> Value:
    """Return the weights; those over a sequence as weights over an image of height one."""
    weight = node.input(1)
    if weight.dtype not in ("float32", "int8"):
        raise UnsupportedError(Code.DTYPE, f"its weights are {weight.dtype}")
    if any(map(free, weight.shape)):
        raise BatchError("the weights hang on the number of rows")
    if weight.rank != 3:
        return weight
    outer, inner, width = weight.shape
    image = Value(weight.name, (outer, inner, 1, width), weight.dtype, quanta=weight.quanta)
    if weight.constant is not None:
        image.constant = weight.constant[:, :, None]
    else:
        b.put(image, b.reshape(b.get(weight), image.shape))
    return image


def bias_of(b: Builder, node: Node, channels: int) -> Held:
    """Return the bias; kernels of some runtimes want one, so that it is zeros where there is none."""
    value = node.optional(2)
    return b.constant(np.zeros(channels, np.float32)) if value is None else b.get(value)


def _input(b: Builder, x: Held, axes: Sequence[Axis]) -> tuple[Held, int]:
    """Return the image and TFLite's padding; a PAD is put before it where neither SAME nor VALID is exact."""
    padding = padding_of(axes)
    return (x, padding) if padding is not None else (padded(b, x, axes), schema.VALID)


def _sliding(axes: Sequence[Axis], padding: int) -> dict[str, int]:
    height, width = axes
    return {
        "padding": padding,
        "stride_h": height.stride,
        "stride_w": width.stride,
        "dilation_h": height.dilation,
        "dilation_w": width.dilation,
    }


def _grouped(
    b: Builder,
    x: Held,
    weight: Held,
    bias: Held,
    shape: Sequence[int],
    options: dict[str, int],
    group: int,
) -> Held:
    """Convolve each group on its own: kernels that know groups are slower, and older runtimes have none."""
    if group > SPLIT_GROUPS:
        return b.op("CONV_2D", [x, weight, bias], shape, **options)
    part = (*shape[:3], shape[3] // group)
    inputs = zip(b.parts(x, group, axis=3), b.parts(weight, group), b.parts(bias, group), strict=True)
    results = [b.op("CONV_2D", [*group_inputs], part, **options) for group_inputs in inputs]
    return b.op("CONCATENATION", results, shape, axis=3)


def _conv3d(b: Builder, node: Node, axes: Sequence[Axis]) -> None:
    if node.attr("group", 1) != 1:
        raise UnsupportedError(Code.ATTRIBUTE, "a convolution over three axes with groups")
    order, weight = channels_last(5), node.input(1)
    held, padding = _input(b, b.get(node.input(0), order), axes)
    shape = (held.shape[0], *(axis.out for axis in axes), weight.shape[0])
    inputs = [held, b.get(weight, (2, 3, 4, 1, 0)), bias_of(b, node, weight.shape[0])]
    options = {f"stride_{name}": axis.stride for name, axis in zip("dhw", axes, strict=True)}
    options |= {f"dilation_{name}": axis.dilation for name, axis in zip("dhw", axes, strict=True)}
    b.put(node.output, b.op("CONV_3D", inputs, shape, padding=padding, **options), order)


CONV: dict[str, Handler] = {"Conv": _conv}
