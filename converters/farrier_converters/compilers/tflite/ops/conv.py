"""Convolutions, plain, grouped, depthwise and transposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....tflite import layout, schema
from ..builder import Builder, Held
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ._window import Axis, axes_of, image_of, lifted, padded, padding_of, put_image

OHWI = (0, 2, 3, 1)
SPLIT_GROUPS = 64  # more groups than this are not cut into convolutions of their own


def _conv(b: Builder, node: Node) -> None:
    x, weight = node.input(0), _weight(node)
    axes = axes_of(node, x.shape, node.attr("kernel_shape") or weight.shape[2:])
    if x.rank == 5:
        _conv3d(b, node, weight, axes)
        return
    if x.rank not in (3, 4):
        raise UnsupportedError(Code.RANK, f"a convolution over {x.rank - 2} axes")
    if x.rank == 3:
        weight = weight[:, :, None]
    group = node.attr("group", 1)
    axes = lifted(axes)
    held, padding = _input(b, image_of(b, x), axes)
    bias = _bias(node, weight.shape[0])
    if group == 1:
        result = _plain(b, held, weight, bias, axes, padding)
    elif weight.shape[1] == 1:
        result = _depthwise(b, held, weight, bias, axes, padding)
    else:
        result = _grouped(b, held, weight, bias, axes, padding, group)
    put_image(b, node.output, result)


def _weight(node: Node) -> np.ndarray:
    weight = node.constant(1)
    if weight.dtype.kind != "f":
        raise UnsupportedError(Code.DTYPE, f"its weights are {weight.dtype.name}")
    return weight


def _bias(node: Node, channels: int) -> np.ndarray:
    return np.zeros(channels, np.float32) if node.optional(2) is None else node.constant(2).astype(np.float32)


def _input(b: Builder, x: Held, axes: Sequence[Axis]) -> tuple[Held, int]:
    """Return the image and TFLite's padding; a PAD is put before it where neither SAME nor VALID is exact."""
    padding = padding_of(axes)
    return (x, padding) if padding is not None else (padded(b, x, axes), schema.VALID)


def _shape(x: Held, axes: Sequence[Axis], channels: int) -> tuple[int, ...]:
    return (x.shape[0], *(axis.out for axis in axes), channels)


def _sliding(axes: Sequence[Axis], padding: int) -> dict[str, int]:
    height, width = axes
    return {
        "padding": padding,
        "stride_h": height.stride,
        "stride_w": width.stride,
        "dilation_h": height.dilation,
        "dilation_w": width.dilation,
    }


def _plain(
    b: Builder, x: Held, weight: np.ndarray, bias: np.ndarray, axes: Sequence[Axis], padding: int
) -> Held:
    inputs = [x, b.constant(weight.transpose(OHWI)), b.constant(bias)]
    return b.op("CONV_2D", inputs, _shape(x, axes, len(weight)), **_sliding(axes, padding))


def _depthwise(
    b: Builder, x: Held, weight: np.ndarray, bias: np.ndarray, axes: Sequence[Axis], padding: int
) -> Held:
    """Output channel `c * multiplier + m` reads input channel `c`, in ONNX as in TFLite."""
    channels = len(weight)
    inputs = [x, b.constant(weight.transpose(1, 2, 3, 0)), b.constant(bias)]
    options = {**_sliding(axes, padding), "multiplier": channels // x.shape[-1]}
    return b.op("DEPTHWISE_CONV_2D", inputs, _shape(x, axes, channels), **options)


def _grouped(
    b: Builder,
    x: Held,
    weight: np.ndarray,
    bias: np.ndarray,
    axes: Sequence[Axis],
    padding: int,
    group: int,
) -> Held:
    """Convolve each group on its own: kernels that know groups are slower, and older runtimes have none."""
    if group > SPLIT_GROUPS:
        return _plain(b, x, weight, bias, axes, padding)
    depth = x.shape[-1] // group
    parts = b.ops(
        "SPLIT", [b.constant(np.int32(3)), x], [(*x.shape[:3], depth)] * group, x.dtype, count=group
    )
    weights, biases = np.split(weight, group), np.split(bias, group)
    results = [
        _plain(b, part, w, c, axes, padding) for part, w, c in zip(parts, weights, biases, strict=True)
    ]
    return b.op("CONCATENATION", results, _shape(x, axes, len(weight)), axis=3)


def _conv3d(b: Builder, node: Node, weight: np.ndarray, axes: Sequence[Axis]) -> None:
    if node.attr("group", 1) != 1:
        raise UnsupportedError(Code.ATTRIBUTE, "a convolution over three axes with groups")
    held, padding = _input(b, b.get(node.input(0), (0, 2, 3, 4, 1)), axes)
    inputs = [held, b.constant(weight.transpose(2, 3, 4, 1, 0)), b.constant(_bias(node, len(weight)))]
    options = {f"stride_{name}": axis.stride for name, axis in zip("dhw", axes, strict=True)}
    options |= {f"dilation_{name}": axis.dilation for name, axis in zip("dhw", axes, strict=True)}
    result = b.op("CONV_3D", inputs, _shape(held, axes, len(weight)), padding=padding, **options)
    b.put(node.output, result, (0, 2, 3, 4, 1))


def _conv_transpose(b: Builder, node: Node) -> None:
    """Spread over the whole output, then cut the paddings off: TFLite's own paddings allow for only a few of them."""
    x, weight = node.input(0), _weight(node)
    if x.rank not in (3, 4):
        raise UnsupportedError(Code.RANK, f"a transposed convolution over {x.rank - 2} axes")
    if any(d != 1 for d in node.attr("dilations") or []):
        weight = _dilated(weight, node.attr("dilations"))
    if x.rank == 3:
        weight = weight[:, :, None]
    group, held = node.attr("group", 1), image_of(b, x)
    strides = [1] * (x.rank == 3) + list(node.attr("strides") or [1] * (x.rank - 2))
    sizes = [1] * (x.rank == 3) + list(node.output.shape[2:])
    begins = [0] * (x.rank == 3) + _begins(node, weight.shape[2 + (x.rank == 3) :])
    full = [
        (size - 1) * stride + kernel
        for size, stride, kernel in zip(held.shape[1:3], strides, weight.shape[2:], strict=True)
    ]
    bias = _bias(node, weight.shape[1] * group)
    beyond = any(begin + size > f for begin, size, f in zip(begins, sizes, full, strict=True))
    inside = bias.any() and not beyond  # what is put on beyond the product has a bias too
    parts = [held]
    if group > 1:
        shapes = [(*held.shape[:3], held.shape[-1] // group)] * group
        parts = b.ops("SPLIT", [b.constant(np.int32(3)), held], shapes, held.dtype, count=group)
    results = [
        _spread(b, part, w, c if inside else None, strides, full, begins, sizes)
        for part, w, c in zip(parts, np.split(weight, group), np.split(bias, group), strict=True)
    ]
    result = results[0]
    if group > 1:
        result = b.op("CONCATENATION", results, (*result.shape[:3], len(bias)), axis=3)
    if bias.any() and not inside:
        result = b.binary("ADD", result, b.constant(bias))
    put_image(b, node.output, result)


def _dilated(weight: np.ndarray, dilations: Sequence[int]) -> np.ndarray:
    """Write the zeros between a kernel's elements out."""
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight
    return wide


def _begins(node: Node, kernel: Sequence[int]) -> list[int]:
    """Return how much of the full output is cut off before what the node gives."""
    x, count = node.input(0), len(kernel)
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "NOTSET" and node.attr("output_shape") is None:
        return list((node.attr("pads") or [0] * (2 * count))[:count])
    if mode == "VALID":
        return [0] * count
    strides = node.attr("strides") or [1] * count
    extra = node.attr("output_padding") or [0] * count
    begins = []
    for i in range(count):
        total = strides[i] * (x.shape[2 + i] - 1) + extra[i] + kernel[i] - node.output.shape[2 + i]
        total = max(total, 0)
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return begins


def _spread(
    b: Builder,
    x: Held,
    weight: np.ndarray,
    bias: np.ndarray | None,
    strides: Sequence[int],
    full: Sequence[int],
    begins: Sequence[int],
    sizes: Sequence[int],
) -> Held:
    """One TRANSPOSE_CONV with the padding that fits: SAME where it cuts right, else VALID and a slice or a PAD."""
    channels = weight.shape[1]
    cut = [max(f - size, 0) // 2 for f, size in zip(full, sizes, strict=True)]
    same = list(begins) == cut and all(
        -(-size // stride) == extent and f >= size
        for size, stride, extent, f in zip(sizes, strides, x.shape[1:3], full, strict=True)
    )
    out = sizes if same else full
    shape = (x.shape[0], *out, channels)
    rows = _rows(b, x, shape) if layout.free(x.shape[0]) else b.integers(shape)
    kernel = b.constant(weight.transpose(1, 2, 3, 0))
    padding = schema.SAME if same else schema.VALID
    options = {"padding": padding, "stride_h": strides[0], "stride_w": strides[1]}
    inputs = [rows, kernel, x, *([] if bias is None else [b.constant(bias)])]
    result = b.op("TRANSPOSE_CONV", inputs, shape, "float32", **options)
    return result if same else _cut(b, result, begins, sizes)


def _rows(b: Builder, x: Held, shape: Sequence[int]) -> Held:
    """Compute the shape of the output when the graph runs, because the number of rows is free."""
    whole = b.op("SHAPE", [x], (4,), "int32", type=schema.NUMBERS["int32"])
    ends = [b.integers([value]) for value in (0, 1, 1)]
    count = b.op("STRIDED_SLICE", [whole, *ends], (1,))
    return b.op("CONCATENATION", [count, b.integers(shape[1:])], (4,), axis=0)


def _cut(b: Builder, x: Held, begins: Sequence[int], sizes: Sequence[int]) -> Held:
    """Take `sizes` from `begins` on; what lies beyond the image is zero."""
    missing = [max(begin + size - s, 0) for begin, size, s in zip(begins, sizes, x.shape[1:3], strict=True)]
    if any(missing):
        amounts = np.array([(0, 0), *((0, m) for m in missing), (0, 0)], np.int32)
        wide = [s + m for s, m in zip(x.shape[1:3], missing, strict=True)]
        x = b.op("PAD", [x, b.constant(amounts)], (x.shape[0], *wide, x.shape[3]))
    if list(x.shape[1:3]) == list(sizes) and not any(begins):
        return x
    ends = [begin + size for begin, size in zip(begins, sizes, strict=True)]
    inputs = [x, b.integers([0, *begins, 0]), b.integers([0, *ends, 0]), b.integers([1] * 4)]
    return b.op("STRIDED_SLICE", inputs, (x.shape[0], *sizes, x.shape[3]), begin_mask=9, end_mask=9)


CONV: dict[str, Handler] = {"Conv": _conv, "ConvTranspose": _conv_transpose}
