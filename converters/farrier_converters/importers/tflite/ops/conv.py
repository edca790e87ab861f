"""Convolutions: weights are permuted once, a Pad before and space-to-batch around them are taken in."""

from __future__ import annotations

from dataclasses import dataclass

from ....tflite import layout, schema
from ....tflite.layout import NCHW
from ..builder import Builder, Value
from ._operation import Handler, Operation, UnsupportedError


@dataclass(frozen=True)
class _Window:
    """What a convolution does to the two image axes (height, width)."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    same: bool
    weight: str
    group: int
    channels: int


def _conv(b: Builder, op: Operation) -> None:
    weight = op.input(1)
    channels, height, width, depth = weight.shape
    source = op.input(0).shape[3]
    if source % depth:
        raise ValueError(f"{source} channels do not fit a kernel of depth {depth}")
    _place(b, op, _window(b, op, (height, width), b.get(weight, NCHW), source // depth, channels))


def _depthwise(b: Builder, op: Operation) -> None:
    weight = op.input(1)
    _, height, width, channels = weight.shape
    source = op.input(0).shape[3]
    if weight.shape[0] != 1 or channels % source:
        raise ValueError(f"{source} channels do not fit a depthwise kernel of {channels}")
    _place(b, op, _window(b, op, (height, width), b.get(weight, (3, 0, 1, 2)), source, channels))


def _window(
    b: Builder, op: Operation, kernel: tuple[int, int], weight: str, group: int, channels: int
) -> _Window:
    o = op.options
    strides, dilations = (o["stride_h"], o["stride_w"]), (o["dilation_h"], o["dilation_w"])
    if min(*strides, *dilations) < 1:
        raise ValueError("a stride or a dilation is below 1")
    return _Window(kernel, strides, dilations, o["padding"] == schema.SAME, weight, group, channels)


def _place(b: Builder, op: Operation, window: _Window) -> None:
    x = op.input(0)
    bias = op.optional(2)
    extra = [] if bias is None else [b.get(bias)]
    source, pads = x.padded if x.padded and not window.same else (x, (0, 0, 0, 0))
    _emit(b, op, source, window, pads, extra, op.output)
    if x.blocked is None or window.strides != (1, 1) or window.dilations != (1, 1):
        return
    before, block, around = x.blocked

    def unblock(result: Value, crops: tuple[int, int, int, int]) -> None:
        """Convolve the image as it was before it was cut into blocks, with the block as dilation."""
        wide = _Window(
            window.kernel, (1, 1), block, window.same, window.weight, window.group, window.channels
        )
        origin, inner = before.padded or (before, (0, 0, 0, 0))
        total = [a + i - c for a, i, c in zip(around, inner, crops, strict=True)]
        if min(total) < 0 or (window.same and any(inner)):
            origin, total = before, [a - c for a, c in zip(around, crops, strict=True)]
        if min(total) < 0 or (window.same and any(total)):
            raise UnsupportedError("its blocks are cropped by more than they were padded")
        _emit(b, op, origin, wide, (total[0], total[1], total[2], total[3]), extra, result)

    op.output.unblock = unblock


def _emit(
    b: Builder,
    op: Operation,
    x: Value,
    window: _Window,
    pads: tuple[int, int, int, int],
    extra: list[str],
    result: Value,
) -> None:
    sizes, begins, ends = [], [], []
    for axis in (0, 1):
        size = x.shape[1 + axis] + pads[axis] + pads[2 + axis]
        kernel, stride, dilation = window.kernel[axis], window.strides[axis], window.dilations[axis]
        if window.same:
            out, begin, end = layout.same_padding(size, kernel, stride, dilation)
        else:
            out, begin, end = layout.valid_padding(size, kernel, stride, dilation), 0, 0
        sizes.append(out)
        begins.append(begin + pads[axis])
        ends.append(end + pads[2 + axis])
    name = b.node(
        "Conv",
        [b.get(x, NCHW), window.weight, *extra],
        result.name if not op.activation else f"{result.name}/conv",
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*begins, *ends],
        group=window.group,
    )
    name = b.activation(op.activation, name, result.name)
    b.put(result, name, NCHW, (x.shape[0], *sizes, window.channels))


def _transpose_conv(b: Builder, op: Operation) -> None:
    """Inputs are the shape of the output, the weights and the image."""
    height, width = op.integers(0)[1:3]
    weight, x, o = op.input(1), op.input(2), op.options
    channels, *kernel, depth = weight.shape
    if depth != x.shape[3]:
        raise ValueError(f"{x.shape[3]} channels do not fit a kernel of depth {depth}")
    begins, ends, extra = [], [], []
    for axis, (size, stride) in enumerate(((height, o["stride_h"]), (width, o["stride_w"]))):
        full = (x.shape[1 + axis] - 1) * stride + kernel[axis]
        begin = max(full - size, 0) // 2 if o["padding"] == schema.SAME else 0
        end = full - size - begin
        begins.append(begin)
        ends.append(max(end, 0))
        extra.append(max(-end, 0))
    bias = op.optional(3)
    name = b.node(
        "ConvTranspose",
        [b.get(x, NCHW), b.get(weight, (3, 0, 1, 2)), *([] if bias is None else [b.get(bias)])],
        op.output.name if not op.activation else f"{op.output.name}/conv",
        kernel_shape=list(kernel),
        strides=[o["stride_h"], o["stride_w"]],
        pads=[*begins, *ends],
        output_padding=extra,
    )
    name = b.activation(op.activation, name, op.output.name)
    b.put(op.output, name, NCHW, (x.shape[0], height, width, channels))


CONV: dict[str, Handler] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transpose_conv,
}
