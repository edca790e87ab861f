"""Windows that slide over an image: what ONNX asks for, as TFLite's paddings and a PAD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...tflite import layout, schema
from ...tflite.layout import Shape
from .builder import Builder, Held, Value
from .ends import channels_last
from .errors import Code, UnsupportedError
from .node import Node


@dataclass(frozen=True)
class Axis:
    """One axis that the window slides along; `out` is how many places it takes."""

    size: int
    kernel: int
    stride: int
    dilation: int
    begin: int  # padding before
    end: int  # how far the last window reaches beyond the image; negative where the tail is not read
    out: int
    declared_end: int  # padding after that the graph states, read or not

    @property
    def reach(self) -> int:
        """From the first to the last element of one window, both included."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def same(self) -> bool:
        """Say whether this is TFLite's SAME, which puts an odd padding at the end."""
        out, before, _ = layout.same_padding(self.size, self.kernel, self.stride, self.dilation)
        return (self.out, self.begin) == (out, before)

    @property
    def valid(self) -> bool:
        """Say whether no padding is read."""
        return self.begin == 0 and self.end <= 0


def axes_of(node: Node, shape: Shape, kernel: Sequence[int], *, ceil: bool = False) -> list[Axis]:
    """Resolve strides, dilations and paddings of a node over an input of this ONNX shape."""
    count = len(kernel)
    strides = node.attr("strides") or [1] * count
    dilations = node.attr("dilations") or [1] * count
    pads = list(node.attr("pads") or [0] * (2 * count))
    mode = node.attr("auto_pad", "NOTSET")
    sizes = shape[2:]
    if any(map(layout.free, sizes)) or len(sizes) != count:
        raise UnsupportedError(Code.SHAPE, f"a window of {list(kernel)} over {list(shape)}")
    return [
        _axis(mode, ceil, sizes[i], kernel[i], strides[i], dilations[i], pads[i], pads[count + i])
        for i in range(count)
    ]


def _axis(
    mode: str, ceil: bool, size: int, kernel: int, stride: int, dilation: int, begin: int, end: int
) -> Axis:
    reach = (kernel - 1) * dilation + 1
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        out = -(-size // stride)
        total = max((out - 1) * stride + reach - size, 0)
        begin = total // 2 if mode == "SAME_UPPER" else total - total // 2
        end = total - begin
    else:
        if mode == "VALID":
            begin = end = 0
        room = size + begin + end - reach
        out = (-(-room // stride) if ceil else room // stride) + 1
        if ceil and (out - 1) * stride >= size + begin:
            out -= 1  # a window that starts in the padding after the image is left out
    if out < 1:
        raise UnsupportedError(Code.SHAPE, "its window is larger than its input")
    return Axis(size, kernel, stride, dilation, begin, (out - 1) * stride + reach - size - begin, out, end)


def padding_of(axes: Sequence[Axis]) -> int | None:
    """Return TFLite's padding where it is exactly this one, else None."""
    if all(axis.valid for axis in axes):
        return schema.VALID
    return schema.SAME if all(axis.same for axis in axes) else None


def pad(b: Builder, x: Held, amounts: Sequence[tuple[int, int]], fill: Held | float = 0.0) -> Held:
    """Append a PAD: pairs of amounts before and after, by axis as stored; `fill` may be computed."""
    if not any(map(any, amounts)):
        return x
    shape = [size + sum(pair) if any(pair) else size for size, pair in zip(x.shape, amounts, strict=True)]
    flat = b.constant(_pairs(amounts))
    if fill == 0.0:
        return b.op("PAD", [x, flat], shape)
    value = fill if isinstance(fill, Held) else b.number(fill, x)
    return b.op("PADV2", [x, flat, value], shape)


def _pairs(amounts: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(amounts, np.int32).reshape(-1, 2)


def padded(b: Builder, x: Held, axes: Sequence[Axis], fill: float = 0.0) -> Held:
    """Pad a channels-last image so that VALID reads what the axes ask for."""
    amounts = [(axis.begin, max(axis.end, 0)) for axis in axes]
    return pad(b, x, [(0, 0), *amounts, (0, 0)], fill)


def image_of(b: Builder, value: Value) -> Held:
    """Return a tensor channels last; a sequence becomes an image of height one."""
    held = b.get(value, channels_last(value.rank))
    if value.rank == 3:
        return b.reshape(held, (held.shape[0], 1, *held.shape[1:]))
    return held


def put_image(b: Builder, value: Value, held: Held) -> None:
    """Say that a channels-last tensor holds `value`; of a sequence, an image of height one."""
    if value.rank == 3:
        held = b.reshape(held, (held.shape[0], *held.shape[2:]))
    b.put(value, held, channels_last(value.rank))


def lifted(axes: Sequence[Axis]) -> list[Axis]:
    """Return the axes of an image (height, width) for those of a sequence."""
    return [Axis(1, 1, 1, 1, 0, 0, 1, 0), *axes] if len(axes) == 1 else list(axes)
