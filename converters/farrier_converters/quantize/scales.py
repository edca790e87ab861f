"""The arithmetic of quantization: from ranges and weights to scales, zero points and integers. No graph, no I/O.

Activations are computed for unsigned 8-bit; the signed form is the same with every integer lowered by 128, so
that one scale table serves both kinds of engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = 255  # steps between the smallest and the largest 8-bit integer
SIGNED_SHIFT = 128
SMALLEST_SCALE = 1e-20  # keeps input scale * weight scale a normal float32
BIAS_LIMIT = float(1 << 30)  # of an int32 bias; the other half is headroom for the accumulator


@dataclass(frozen=True)
class Range:
    """The real numbers that a tensor takes, zero included."""

    low: float
    high: float

    def union(self, other: Range) -> Range:
        """Return the smallest range that holds both."""
        return Range(min(self.low, other.low), max(self.high, other.high))


@dataclass(frozen=True)
class Affine:
    """real = scale * (integer - zero_point), for unsigned 8-bit integers."""

    scale: np.float32
    zero_point: int


def activation(extent: Range, *, symmetric: bool = False) -> Affine:
    """Return scale and zero point for a range; zero is exactly representable. A range of nothing gets scale 1.

    The scale is rounded down where needed, so that the largest integer never stands for more than `high`: an
    engine may then drop a clip at `high`, because the quantizer does it.
    """
    low, high = min(extent.low, 0.0), max(extent.high, 0.0)
    if symmetric:
        bound = max(-low, high)
        return Affine(_float32(bound / 127) if bound else np.float32(1), SIGNED_SHIFT)
    if high == low:
        return Affine(np.float32(1), 0)
    zero_point = round(-low / (high - low) * LEVELS)
    scale = _float32((high - low) / LEVELS)
    if low == 0.0 and float(scale) * LEVELS > high:
        scale = np.nextafter(scale, np.float32(0))
    return Affine(scale, zero_point)


def quantize(values: np.ndarray, affine: Affine) -> np.ndarray:
    """Return unsigned integers, rounded half to even as engines do."""
    return np.clip(np.rint(values / affine.scale) + affine.zero_point, 0, LEVELS).astype(np.uint8)


def dequantize(integers: np.ndarray, affine: Affine) -> np.ndarray:
    """Return the real numbers that unsigned integers stand for."""
    return (integers.astype(np.float32) - np.float32(affine.zero_point)) * affine.scale


def weights(
    values: np.ndarray, *, bits: int, axis: int | None, floor: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize weights symmetrically: int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1], and float32 scales.

    There is one scale per index of `axis`, or one for all where `axis` is None. No scale is below `floor`.
    """
    limit = 2 ** (bits - 1) - 1
    axes = None if axis is None else tuple(a for a in range(values.ndim) if a != axis % values.ndim)
    bound = np.abs(values).max(axis=axes) if values.size else np.zeros(())
    scale = np.maximum(np.maximum(bound / limit, floor), SMALLEST_SCALE).astype(np.float32)
    spread = (
        scale
        if axis is None
        else scale.reshape([-1 if a == axis % values.ndim else 1 for a in range(values.ndim)])
    )
    return np.clip(np.rint(values / spread), -limit, limit).astype(np.int8), scale


def bias(
    values: np.ndarray, *, input_scale: np.float32, weight_scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize a bias to int32 in the scale of its accumulator, input scale * weight scale."""
    scale = np.broadcast_to(np.float32(input_scale) * weight_scale, values.shape).astype(np.float32)
    return np.rint(values / scale.astype(np.float64)).astype(np.int32), scale


def bias_floor(values: np.ndarray, *, input_scale: np.float32) -> np.ndarray:
    """Return the smallest weight scales with which the bias still fits its int32.

    A channel whose weights are all but zero would else get a scale so small that its bias overflows.
    """
    return np.maximum(np.abs(values) / (float(input_scale) * BIAS_LIMIT), 1e-30 / float(input_scale))


def _float32(scale: float) -> np.float32:
    return np.float32(max(scale, SMALLEST_SCALE))
