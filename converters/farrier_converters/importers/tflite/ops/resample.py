"""Pooling, resizing, and moving blocks of pixels to channels."""

from __future__ import annotations

from functools import partial

import numpy as np

from ....tflite import layout, schema
from ....tflite.layout import NCHW
from ..builder import Builder
from ._operation import Handler, Operation, UnsupportedError


def _pool(onnx_op: str, b: Builder, op: Operation) -> None:
    x, o = op.input(0), op.options
    n, *image, channels = x.shape
    kernel, strides = [o["filter_h"], o["filter_w"]], [o["stride_h"], o["stride_w"]]
    if min(*kernel, *strides) < 1:
        raise ValueError("a stride or a filter is below 1")
    sizes, begins, ends = [], [], []
    for size, k, stride in zip(image, kernel, strides, strict=True):
        if o["padding"] == schema.SAME:
            out, begin, end = layout.same_padding(size, k, stride, 1)
        else:
            out, begin, end = layout.valid_padding(size, k, stride, 1), 0, 0
        sizes.append(out)
        begins.append(begin)
        ends.append(end)
    result = op.output.name if not op.activation else f"{op.output.name}/pool"
    source = b.get(x, NCHW)
    if kernel == image and sizes == [1, 1] and not any((*begins, *ends)):
        name = b.node(f"Global{onnx_op}", [source], result)
    else:
        name = b.node(onnx_op, [source], result, kernel_shape=kernel, strides=strides, pads=[*begins, *ends])
    b.put(op.output, b.activation(op.activation, name, op.output.name), NCHW, (n, *sizes, channels))


def _resize(mode: str, b: Builder, op: Operation) -> None:
    """Coordinates as in tensorflow/lite/kernels/internal/reference/resize_*.h."""
    x, (height, width) = op.input(0), op.integers(1)
    n, *image, channels = x.shape
    corners, half = bool(op.options["align_corners"]), bool(op.options["half_pixel"])
    if corners and half:
        raise ValueError("it asks for aligned corners and for half pixels at once")
    where = "align_corners" if corners else "half_pixel" if half else "asymmetric"
    attributes = {}
    if mode == "nearest":
        attributes["nearest_mode"] = "round_prefer_ceil" if corners or half else "floor"
    scales = [_scale(old, new) for old, new in zip(image, (height, width), strict=True)]
    name = b.node(
        "Resize",
        [b.get(x, NCHW), "", b.constant("scales", np.array([1, 1, *scales], np.float32))],
        op.output.name,
        mode=mode,
        coordinate_transformation_mode=where,
        **attributes,
    )
    b.put(op.output, name, NCHW, (n, height, width, channels))


def _scale(old: int, new: int) -> np.float32:
    """Return a scale that gives exactly the new size when the product is rounded down."""
    scale = np.float32(new / old)
    for candidate in (scale, np.nextafter(scale, np.float32(np.inf))):
        if int(np.float32(old) * candidate) == new:
            return candidate
    raise UnsupportedError(f"no scale takes {old} to {new} exactly")


def _space_to_depth(b: Builder, op: Operation) -> None:
    x, block = op.input(0), int(op.options["block"])
    n, height, width, channels = x.shape
    if block < 1 or height % block or width % block:
        raise ValueError("the block does not fit the image")
    name = b.node("SpaceToDepth", [b.get(x, NCHW)], op.output.name, blocksize=block)
    b.put(op.output, name, NCHW, (n, height // block, width // block, channels * block**2))


def _depth_to_space(b: Builder, op: Operation) -> None:
    x, block = op.input(0), int(op.options["block"])
    n, height, width, channels = x.shape
    if block < 1 or channels % block**2:
        raise ValueError("the block does not fit the channels")
    name = b.node("DepthToSpace", [b.get(x, NCHW)], op.output.name, blocksize=block, mode="DCR")
    b.put(op.output, name, NCHW, (n, height * block, width * block, channels // block**2))


RESAMPLE: dict[str, Handler] = {
    "AVERAGE_POOL_2D": partial(_pool, "AveragePool"),
    "MAX_POOL_2D": partial(_pool, "MaxPool"),
    "RESIZE_BILINEAR": partial(_resize, "linear"),
    "RESIZE_NEAREST_NEIGHBOR": partial(_resize, "nearest"),
    "SPACE_TO_DEPTH": _space_to_depth,
    "DEPTH_TO_SPACE": _depth_to_space,
}
