"""How convolutions and pools walk over an image: padding, and views of all windows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...tflite import schema
from .call import Call, KernelError, bounded


@dataclass(frozen=True)
class Window:
    """One number per spatial axis, height first; `ends` is only what a window reaches."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    sizes: tuple[int, int]  # of the result
    begins: tuple[int, int]
    ends: tuple[int, int]


def window(call: Call, image: tuple[int, int], kernel: tuple[int, int], *, dilated: bool) -> Window:
    """Read an operator's options for an image; `ComputePaddingHeightWidth` of tensorflow/lite/kernels/padding.h."""
    strides = (call.option("stride_h"), call.option("stride_w"))
    dilations = (call.option("dilation_h"), call.option("dilation_w")) if dilated else (1, 1)
    if min(*strides, *dilations, *kernel) < 1:
        raise KernelError("a stride, a dilation or a side of the kernel is less than 1")
    sides = [
        _side(*numbers, same=call.option("padding") == schema.SAME)
        for numbers in zip(image, kernel, strides, dilations, strict=True)
    ]
    sizes, begins, ends = ((a, b) for a, b in zip(*sides, strict=True))
    return Window(kernel, strides, dilations, sizes, begins, ends)


def _side(size: int, kernel: int, stride: int, dilation: int, *, same: bool) -> tuple[int, int, int]:
    """Return the result's size, the padding before, and after."""
    reach = (kernel - 1) * dilation + 1
    count = -(-size // stride) if same else (size + stride - reach) // stride
    if count < 1:
        raise KernelError("the kernel is larger than the image")
    total = max((count - 1) * stride + reach - size, 0)
    return count, total // 2, total - total // 2


def padded(image: np.ndarray, how: Window, fill: int = 0) -> np.ndarray:
    """Pad an image [n, h, w, c]; raises KernelError where that is too large."""
    sides = ((0, 0), *zip(how.begins, how.ends, strict=True), (0, 0))
    if not any(map(any, sides)):
        return image
    bounded([size + sum(pair) for size, pair in zip(image.shape, sides, strict=True)])
    return np.pad(image, sides, constant_values=fill)


def windows(image: np.ndarray, how: Window) -> np.ndarray:
    """Return a view [n, h, w, kernel h, kernel w, c] of a padded image."""
    reach = tuple((k - 1) * d + 1 for k, d in zip(how.kernel, how.dilations, strict=True))
    seen = np.lib.stride_tricks.sliding_window_view(image, reach, (1, 2))
    rows, columns = (slice(None, n * s, s) for n, s in zip(how.sizes, how.strides, strict=True))
    return np.moveaxis(seen[:, rows, columns, :, :: how.dilations[0], :: how.dilations[1]], 3, -1)


def image_sides(call: Call, position: int) -> tuple[int, int]:
    """Return height and width of an input [n, h, w, c]; raises KernelError."""
    shape = call.value(position).shape
    if len(shape) != 4:
        raise KernelError(f"its image has {len(shape)} axes")
    return shape[1], shape[2]
