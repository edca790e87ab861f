"""Transposed convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ....tflite import layout, schema
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..window import image_of, put_image
from .conv import IHWO, bias_of, weights


@dataclass(frozen=True)
class _Spread:
    """One of the two axes: the input spreads over `full` places, of which `size` are kept from `begin` on."""

    source: int
    stride: int
    kernel: int
    begin: int
    size: int

    @property
    def full(self) -> int:
        return (self.source - 1) * self.stride + self.kernel

    @property
    def same(self) -> bool:
        """Say whether this is TFLite's SAME: half of what is too much is cut off before."""
        extra = self.full - self.size
        return extra >= 0 and self.begin == extra // 2 and -(-self.size // self.stride) == self.source

    @property
    def valid(self) -> bool:
        return self.begin == 0 and self.size == self.full


def _conv_transpose(b: Builder, node: Node) -> None:
    """Spread over the whole output, then cut the paddings off where TFLite's own two do not fit."""
    x, weight = node.input(0), weights(b, node)
    if x.rank not in (3, 4):
        raise UnsupportedError(Code.RANK, f"a transposed convolution over {x.rank - 2} axes")
    weight = _dilated(weight, [1] * (4 - x.rank) + list(node.attr("dilations") or [1] * (x.rank - 2)))
    group, held = node.attr("group", 1), image_of(b, x)
    axes = _axes(node, held, weight)
    bias = bias_of(b, node, weight.shape[1] * group)
    beyond = any(axis.begin + axis.size > axis.full for axis in axes)  # what is put on there has a bias too
    kernels = b.parts(b.get(weight, IHWO), group, axis=3)
    biases = [None] * group if node.optional(2) is None or beyond else b.parts(bias, group)
    results = [
        _spread(b, part, kernel, addend, axes)
        for part, kernel, addend in zip(b.parts(held, group, axis=3), kernels, biases, strict=True)
    ]
    result = results[0]
    if group > 1:
        result = b.op("CONCATENATION", results, (*result.shape[:3], bias.shape[0]), axis=3)
    if beyond and node.optional(2) is not None:
        result = b.binary("ADD", result, bias)
    put_image(b, node.output, result)


def _dilated(weight: Value, dilations: Sequence[int]) -> Value:
    """Write the zeros between a kernel's elements out."""
    if all(d == 1 for d in dilations):
        return weight
    if weight.constant is None:
        raise UnsupportedError(Code.VALUE, "dilated weights are computed; they have to be constant")
    sizes = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    wide = np.zeros((*weight.shape[:2], *sizes), weight.constant.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = weight.constant
    return Value(weight.name, wide.shape, weight.dtype, constant=wide, quanta=weight.quanta)


def _axes(node: Node, x: Held, weight: Value) -> list[_Spread]:
    count = node.input(0).rank - 2
    strides = list(node.attr("strides") or [1] * count)
    begins = _begins(node, weight.shape[4 - count :], strides)
    sizes = list(node.output.shape[2:])
    fill = 2 - count
    return [
        _Spread(*numbers)
        for numbers in zip(
            x.shape[1:3],
            [1] * fill + strides,
            weight.shape[2:],
            [0] * fill + begins,
            [1] * fill + sizes,
            strict=True,
        )
    ]


def _begins(node: Node, kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """Return how much of the full output is cut off before what the node gives."""
    x, count = node.input(0), len(kernel)
    mode = node.attr("auto_pad", "NOTSET")
    if mode == "NOTSET" and node.attr("output_shape") is None:
        return list((node.attr("pads") or [0] * (2 * count))[:count])
    if mode == "VALID":
        return [0] * count
    extra = node.attr("output_padding") or [0] * count
    begins = []
    for i in range(count):
        total = strides[i] * (x.shape[2 + i] - 1) + extra[i] + kernel[i] - node.output.shape[2 + i]
        total = max(total, 0)
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
    return begins


def _spread(b: Builder, x: Held, kernel: Held, bias: Held | None, axes: Sequence[_Spread]) -> Held:
    """One TRANSPOSE_CONV with the padding that fits: SAME where it cuts right, else VALID and a slice or a PAD."""
    same = all(axis.same for axis in axes)
    out = [axis.size if same else axis.full for axis in axes]
    shape = (x.shape[0], *out, kernel.shape[0])
    rows = _rows(b, x, shape) if layout.free(x.shape[0]) else b.integers(shape)
    options = {
        "padding": schema.SAME if same else schema.VALID,
        "stride_h": axes[0].stride,
        "stride_w": axes[1].stride,
    }
    inputs = [rows, kernel, x, *([] if bias is None else [bias])]
    result = b.op("TRANSPOSE_CONV", inputs, shape, x.dtype, **options)
    return result if same else _cut(b, result, axes)


def _rows(b: Builder, x: Held, shape: Sequence[int]) -> Held:
    """Compute the shape of the output when the graph runs, because the number of rows is free."""
    whole = b.op("SHAPE", [x], (4,), "int32", type=schema.NUMBERS["int32"])
    ends = [b.integers([value]) for value in (0, 1, 1)]
    count = b.op("STRIDED_SLICE", [whole, *ends], (1,))
    return b.op("CONCATENATION", [count, b.integers(shape[1:])], (4,), axis=0)


def _cut(b: Builder, x: Held, axes: Sequence[_Spread]) -> Held:
    """Keep what the node gives; what lies beyond the product is zero."""
    missing = [max(axis.begin + axis.size - axis.full, 0) for axis in axes]
    if any(missing):
        amounts = b.constant(np.array([(0, 0), *((0, m) for m in missing), (0, 0)], np.int32))
        wide = [size + m for size, m in zip(x.shape[1:3], missing, strict=True)]
        x = b.op("PAD", [x, amounts], (x.shape[0], *wide, x.shape[3]))
    if all(axis.begin == 0 and axis.size == size for axis, size in zip(axes, x.shape[1:3], strict=True)):
        return x
    begins = [0, *(axis.begin for axis in axes), 0]
    ends = [0, *(axis.begin + axis.size for axis in axes), 0]
    inputs = [x, b.integers(begins), b.integers(ends), b.integers([1] * 4)]
    shape = (x.shape[0], *(axis.size for axis in axes), x.shape[3])
    return b.op("STRIDED_SLICE", inputs, shape, begin_mask=9, end_mask=9)


DECONV: dict[str, Handler] = {"ConvTranspose": _conv_transpose}
