"""The arithmetic of quantization: from ranges and weights to scales, zero points and integers. No graph, no I/O.

Activations are computed for unsigned integers of 2 to 8 bits; the signed form is the same with every integer
lowered by half the number of levels, so that one scale table serves both kinds of engine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BITS = range(2, 9)  # of weights and activations; all are stored in 8
MSE_BITS = (
    6  # of weights; with fewer levels than these, clipping a channel's outliers wins over reaching them
)
CLIPPINGS = (
    48  # weight bounds that the search tries, from all of the largest magnitude to SMALLEST_SHARE of it
)
SMALLEST_SHARE = 0.3
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
    """real = scale * (integer - zero_point), for unsigned integers of `bits` bits."""

    scale: np.float32
    zero_point: int
    bits: int = 8

    @property
    def levels(self) -> int:
        """The largest integer: steps between the smallest and the largest real number."""
        return 2**self.bits - 1

    @property
    def shift(self) -> int:
        """What the signed form of an integer is lower by."""
        return 2 ** (self.bits - 1)


def activation(
    extent: Range, *, symmetric: bool = False, bits: int = 8, power_of_two: bool = False
) -> Affine:
    """Return scale and zero point for a range; zero is exactly representable. A range of nothing gets scale 1.

    The scale is rounded down where needed, so that the largest integer never stands for more than `high`: an
    engine may then drop a clip at `high`, because the quantizer does it. A power of two is rounded up instead, so
    that the range stays inside.
    """
    low, high = min(extent.low, 0.0), max(extent.high, 0.0)
    levels, half = 2**bits - 1, 2 ** (bits - 1)
    if symmetric:
        bound = max(-low, high)
        return Affine(_step(bound / (half - 1), power_of_two) if bound else np.float32(1), half, bits)
    if high == low:
        return Affine(np.float32(1), 0, bits)
    scale = _step((high - low) / levels, power_of_two)
    if power_of_two:
        return Affine(scale, min(round(-low / float(scale)), levels), bits)
    if low == 0.0 and float(scale) * levels > high:
        scale = np.nextafter(scale, np.float32(0))
    return Affine(scale, round(-low / (high - low) * levels), bits)


def quantize(values: np.ndarray, affine: Affine) -> np.ndarray:
    """Return unsigned integers, rounded half to even as engines do."""
    return np.clip(np.rint(values / affine.scale) + affine.zero_point, 0, affine.levels).astype(np.uint8)


def dequantize(integers: np.ndarray, affine: Affine) -> np.ndarray:
    """Return the real numbers that unsigned integers stand for."""
    return (integers.astype(np.float32) - np.float32(affine.zero_point)) * affine.scale


def weights(
    values: np.ndarray,
    *,
    bits: int,
    axis: int | None,
    floor: np.ndarray | float = 0.0,
    method: str = "auto",
    power_of_two: bool = False,
    known: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Quantize weights symmetrically: int8 in [-(2^(bits-1) - 1), 2^(bits-1) - 1], and float32 scales.

    There is one scale per index of `axis`, or one for all where `axis` is None. No scale is below `floor`. `method`
    says how far a scale reaches: to the largest magnitude (`max`), to where the squared error is least (`mse`), or
    by the number of bits (`auto`: `mse` for two; at four, a CIFAR-10 ResNet20 lost 3.8 points with `max` and 6.4
    with `mse`). Scales that are `known` are taken, where the floor lets them; others are rounded up to 11 bits, so that
    a file can hold them as float16.
    """
    limit = 2 ** (bits - 1) - 1
    clip = method == "mse" or (method == "auto" and bits <= MSE_BITS)
    if known is not None:
        bound = known * limit
    else:
        bound = _clipping(values, limit, axis) if clip and values.size else _largest(values, axis)
    scale = np.maximum(np.maximum(bound / limit, floor), SMALLEST_SCALE).astype(np.float32)
    if power_of_two:
        scale = _power_of_two(scale)
    elif known is None:
        scale = _short(scale)
    spread = _along(scale, axis, values.ndim)
    return np.clip(np.rint(values / spread), -limit, limit).astype(np.int8), scale


def _largest(values: np.ndarray, axis: int | None) -> np.ndarray:
    return np.abs(values).max(axis=_others(values, axis)) if values.size else np.zeros(())


def _clipping(values: np.ndarray, limit: int, axis: int | None) -> np.ndarray:
    """Return the magnitude per channel at which clipping costs the least squared error.

    Source: Banner et al., "Post training 4-bit quantization", arXiv 1810.05723, by search instead of a formula.
    """
    largest = _largest(values, axis).astype(np.float64)
    best, least = largest, np.full(largest.shape, np.inf)
    for share in np.linspace(1.0, SMALLEST_SHARE, CLIPPINGS):
        step = np.maximum(largest * share / limit, SMALLEST_SCALE)
        spread = _along(step, axis, values.ndim)
        error = np.clip(np.rint(values / spread), -limit, limit) * spread - values
        total = np.square(error).sum(axis=_others(values, axis))
        best = np.where(total < least, largest * share, best)
        least = np.minimum(total, least)
    return best


def _others(values: np.ndarray, axis: int | None) -> tuple[int, ...] | None:
    return None if axis is None else tuple(a for a in range(values.ndim) if a != axis % values.ndim)


def _along(scale: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    if axis is None:
        return scale
    return scale.reshape([-1 if a == axis % rank else 1 for a in range(rank)])


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


def _step(scale: float, power_of_two: bool) -> np.float32:
    step = np.float32(max(scale, SMALLEST_SCALE))
    return np.float32(_power_of_two(step)) if power_of_two else step


def _short(scale: np.ndarray) -> np.ndarray:
    """Round up to 11 significant bits: by a thousandth at most."""
    mantissa, exponent = np.frexp(scale)
    return np.ldexp(np.ceil(mantissa * 2048) / 2048, exponent).astype(np.float32)


def _power_of_two(scale: np.ndarray | np.float32) -> np.ndarray:
    """Round up to a power of two, exactly."""
    mantissa, exponent = np.frexp(scale)
    return np.ldexp(np.float32(1), np.where(mantissa == 0.5, exponent - 1, exponent)).astype(np.float32)
