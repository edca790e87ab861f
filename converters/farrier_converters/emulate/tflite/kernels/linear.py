"""Convolutions and matrix products: exact sums, scaled by a factor for each channel.

Source: tensorflow/lite/kernels/internal/reference/integer_ops/conv.h, depthwise_conv.h, transpose_conv.h and
fully_connected.h, reference/batch_matmul.h; the factors: `PopulateConvolutionQuantizationParams` and
`GetQuantizedConvolutionMultipler` in tensorflow/lite/kernels/kernel_util.cc.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...rounding import multiplied
from ..call import BYTES, Call, KernelError, bounded, factor, quantum, round_away, scale_of, zero_point
from ..window import image_sides, padded, window, windows

EXACT_FLOAT32, EXACT_FLOAT64 = 1 << 24, 1 << 53  # integers up to here are exact
BLOCK = 1 << 22  # numbers that a convolution copies at once


@dataclass(frozen=True)
class Linear:
    """An operator that sums products: what it sums, and which of its inputs are the image, the weights, the bias."""

    sums: Callable[[Call], np.ndarray]  # int32, without the bias
    image: int = 0
    weights: int = 1
    bias: int = 2

    def total(self, call: Call) -> np.ndarray:
        """Return the sums with the bias: int32."""
        if call.given(self.image).dtype != call.output.dtype or call.output.dtype not in BYTES:
            raise KernelError(
                f"it goes from {call.given(self.image).dtype} to {call.output.dtype}, not 8 bits"
            )
        sums, offsets = self.sums(call), call.optional(self.bias)
        if offsets is None:
            return sums
        if offsets.shape != sums.shape[-1:] or offsets.dtype != np.int32:
            raise KernelError("its bias does not fit the result")
        return _wrapped(sums.astype(np.int64) + offsets)

    def real(self, call: Call) -> float | np.ndarray:
        """Return input scale * weight scales / output scale in doubles: what a sum is multiplied by."""
        weights = call.given(self.weights)
        scale_of(weights)
        scales = weights.scales.astype(np.float64)
        return (
            quantum(call.given(self.image))[0]
            * (scales if scales.size > 1 else scales[0])
            / quantum(call.output)[0]
        )

    def __call__(self, call: Call) -> np.ndarray:
        """Return the result of the reference kernel."""
        sums, real = self.total(call), self.real(call)
        if call.operator.name == "FULLY_CONNECTED":
            scaled = round_away(sums * real).astype(np.int64)  # the only one that leaves fixed point
        else:
            scaled = multiplied(sums, *factor(self._in_float(call) if self._rounds_scales(call) else real))
        return call.finish(scaled)

    def _rounds_scales(self, call: Call) -> bool:
        """Say whether the kernel multiplies the two scales in float32."""
        return call.operator.name == "BATCH_MATMUL" or call.output.dtype == "uint8"

    def _in_float(self, call: Call) -> float:
        scales = scale_of(call.given(self.image)) * scale_of(call.given(self.weights))
        return float(scales) / float(scale_of(call.output))


def product(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the exact matrix product [..., k] x [..., k, n] of integers: int32, wrapped as TFLite's sums would be."""
    kind = exact_kind(rows, np.abs(columns).sum(axis=-2, dtype=np.int64))
    return _wrapped(np.matmul(rows.astype(kind), columns.astype(kind)))


def exact_kind(values: np.ndarray, norms: np.ndarray) -> type[np.floating]:
    """Return the floating-point type in which sums of products are exact whatever the order of summation.

    `norms` are the sums of absolute weights of each result; no partial sum is larger than the largest value times that.
    """
    bound = int(np.abs(values).max(initial=0)) * int(norms.max(initial=0))
    if bound >= EXACT_FLOAT64:
        raise KernelError("its sums are too large")
    return np.float32 if bound < EXACT_FLOAT32 else np.float64


def conv_2d(call: Call) -> np.ndarray:
    """CONV_2D; fewer channels in the filter [o, h, w, c] than in the image make groups."""
    image, weights = call.centred(0), _weights(call, 1)
    outputs, *kernel, channels = weights.shape
    if len(kernel) != 2 or not channels or image.shape[-1] % channels:
        raise KernelError("its filter does not fit the image")
    groups = image.shape[-1] // channels
    if not groups or outputs % groups:
        raise KernelError("its filters do not fill the groups")
    how = window(call, image_sides(call, 0), (kernel[0], kernel[1]), dilated=True)
    flat = weights.reshape(groups, outputs // groups, -1)
    kind = exact_kind(image, np.abs(flat).sum(axis=2, dtype=np.int64))
    seen = windows(padded(image.astype(kind), how), how)
    columns = flat.transpose(0, 2, 1).astype(kind)
    sums = np.empty(bounded((image.shape[0], *how.sizes, outputs)), np.int32)
    for block in _blocks(seen.shape):
        part = seen[block]
        for group, matrix in enumerate(columns):
            terms = part[..., group * channels : (group + 1) * channels].reshape(-1, len(matrix))
            share = slice(group * matrix.shape[1], (group + 1) * matrix.shape[1])
            sums[(*block, ..., share)] = _wrapped(terms @ matrix).reshape(*part.shape[:3], -1)
    return sums


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield parts of the first two of these axes that hold few enough numbers to copy."""
    row, image = math.prod(shape[2:]), math.prod(shape[1:])
    images, rows = max(1, BLOCK // max(image, 1)), max(1, BLOCK // max(row, 1))
    for first in range(0, shape[0], images):
        for top in range(0, shape[1], rows):
            yield slice(first, first + images), slice(top, top + rows)


def depthwise_conv_2d(call: Call) -> np.ndarray:
    """DEPTHWISE_CONV_2D with a filter [1, h, w, c * multiplier]."""
    image, weights = call.centred(0), _weights(call, 1)
    _, *kernel, outputs = weights.shape
    channels = image.shape[-1]
    if len(kernel) != 2 or not channels or outputs % channels:
        raise KernelError("its filter does not fit the image")
    how = window(call, image_sides(call, 0), (kernel[0], kernel[1]), dilated=True)
    sums = np.zeros(bounded((image.shape[0], *how.sizes, outputs)), np.int32)
    seen = windows(np.repeat(padded(image, how), outputs // channels, axis=3), how)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            sums += seen[:, :, :, row, column] * weights[0, row, column]
    return sums


def transpose_conv(call: Call) -> np.ndarray:
    """TRANSPOSE_CONV: the wanted shape, a filter [o, h, w, c], the image and perhaps a bias."""
    shape = bounded(call.integers(0))
    weights, image = _weights(call, 1), call.centred(2)
    outputs, *kernel, channels = weights.shape
    image_sides(call, 2)
    if len(shape) != 4 or len(kernel) != 2 or image.shape[3] != channels or shape[3] != outputs:
        raise KernelError("its filter does not fit the image or the wanted shape")
    how = window(call, (shape[1], shape[2]), (kernel[0], kernel[1]), dilated=False)
    count, height, width, _ = image.shape
    parts = product(image.reshape(-1, channels), weights.reshape(-1, channels).T)
    parts = parts.reshape(count, height, width, outputs, *kernel)
    reach = [
        max((n - 1) * s + k, b + size)
        for n, s, k, b, size in zip((height, width), how.strides, kernel, how.begins, shape[1:3], strict=True)
    ]
    canvas = np.zeros(bounded((count, *reach, outputs)), np.int32)
    for row in range(kernel[0]):
        for column in range(kernel[1]):
            rows = slice(row, row + (height - 1) * how.strides[0] + 1, how.strides[0])
            columns = slice(column, column + (width - 1) * how.strides[1] + 1, how.strides[1])
            canvas[:, rows, columns] += parts[..., row, column]
    top, left = how.begins
    return canvas[:, top : top + shape[1], left : left + shape[2]]


def fully_connected(call: Call) -> np.ndarray:
    """FULLY_CONNECTED with weights [units, k]; what the input's axes before hold is one batch."""
    values, weights = call.centred(0), _weights(call, 1)
    if weights.ndim != 2 or not weights.shape[1] or values.size % weights.shape[1]:
        raise KernelError("its weights do not fit the input")
    units, depth = weights.shape
    sums = product(values.reshape(-1, depth), weights.T)
    return sums.reshape(*values.shape[:-1], units) if call.option("keep_dims") else sums


def batch_matmul(call: Call) -> np.ndarray:
    """BATCH_MATMUL of two activations."""
    left, right = call.centred(0), call.centred(1)
    if min(left.ndim, right.ndim) < 2:
        raise KernelError("it multiplies tensors of less than two axes")
    left = left.swapaxes(-1, -2) if call.option("adjoint_x") else left
    right = right.swapaxes(-1, -2) if call.option("adjoint_y") else right
    return product(left, right)


def _weights(call: Call, position: int) -> np.ndarray:
    """Return a filter as int32; only one scale for all goes with a zero point."""
    given = call.given(position)
    if given.dtype not in ("int8", "uint8"):
        raise KernelError(f"weights of type {given.dtype}")
    values = call.value(position).astype(np.int32)
    return values - zero_point(given) if given.scales.size == 1 else values


def _wrapped(sums: np.ndarray) -> np.ndarray:
    return sums.astype(np.int64).astype(np.int32)


LINEAR: dict[str, Linear] = {
    "CONV_2D": Linear(conv_2d),
    "DEPTHWISE_CONV_2D": Linear(depthwise_conv_2d),
    "TRANSPOSE_CONV": Linear(transpose_conv, image=2, bias=3),
    "FULLY_CONNECTED": Linear(fully_connected),
    "BATCH_MATMUL": Linear(batch_matmul),
}
