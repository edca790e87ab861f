"""From a sum of products to the next 8-bit integer, as engines round it. Numpy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from farrier_contracts.targets import FIXED_POINT

BITS = 31  # of TFLite's multiplier
ADD_SHIFT = 20  # bits that TFLite's ADD gives its inputs before it scales them


@dataclass(frozen=True)
class Params:
    """real = scale * (integer - zero_point): float32 and an integer, or one of each along `axis`."""

    scale: np.ndarray
    zero_point: np.ndarray
    dtype: np.dtype
    axis: int = 0

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)

    def spread(self, values: np.ndarray, rank: int) -> np.ndarray:
        """Return `scale` or `zero_point` in a shape that broadcasts against a tensor of `rank` axes."""
        if values.size == 1:
            return values.reshape(())
        return along(values, self.axis, rank)


def along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    """Return a vector in a shape that broadcasts along `axis` of a tensor of `rank` axes."""
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def scaled(sums: np.ndarray, factor: np.ndarray, rounding: str, *, once: bool = False) -> np.ndarray:
    """Return round(sums * factor), not yet clipped: float32, or int64 in fixed point (`once`: see there).

    `sums` holds integers in any dtype; `factor` is float64, or float32 as the engine computed it.
    """
    if rounding == FIXED_POINT:
        return fixed_point(sums, factor, once=once)
    product = sums.astype(np.float32) * factor.astype(np.float32)
    return np.rint(product, out=product)


def fixed_point(sums: np.ndarray, factor: np.ndarray, *, once: bool = False) -> np.ndarray:
    """Multiply integers by a real factor as TFLite's kernels do: int64, rounded twice, ties away from zero.

    TFLite, `MultiplyByQuantizedMultiplier`: the factor is a 31-bit integer and a power of two; the doubled high half
    of the product is rounded, and its shift to the right once more. `once` is the form that rounds the whole
    product once, ties up: LiteRT 2.3 has it in FULLY_CONNECTED alone.
    """
    multiplier, exponent = quantized_multiplier(factor)
    if once:
        shift = BITS - exponent
        return (sums.astype(np.int64) * multiplier + (np.int64(1) << (shift - 1))) >> shift
    return multiplied(sums, multiplier, exponent)


def multiplied(values: np.ndarray, multiplier: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Return values * multiplier * 2^(exponent - 31), rounded twice as `fixed_point` says: int64."""
    left, right = np.maximum(exponent, 0), np.maximum(-exponent, 0)
    high = values.astype(np.int64) << left
    high *= multiplier
    high += 1 << (BITS - 1)
    high >>= BITS  # what C++ does by cases, dividing towards zero, is this for either sign
    half = np.where(right > 0, (np.int64(1) << right) >> 1, 0)
    high += half - ((high < 0) & (right > 0))
    high >>= right
    return high


def quantized_multiplier(factor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (31-bit integer, exponent) with factor = integer * 2^(exponent - 31); TFLite's QuantizeMultiplier."""
    fraction, exponent = np.frexp(np.asarray(factor, np.float64))
    multiplier = np.floor(fraction * (1 << BITS) + 0.5).astype(np.int64)
    carried = multiplier == 1 << BITS
    multiplier = np.where(carried, multiplier >> 1, multiplier)
    exponent = exponent.astype(np.int64) + carried
    tiny = exponent < -BITS  # TFLite flushes these to nothing
    return np.where(tiny, 0, multiplier), np.where(tiny, 0, exponent)


def clipped(
    values: np.ndarray, params: Params, low: int | None = None, high: int | None = None
) -> np.ndarray:
    """Add the zero point and return integers of the tensor's dtype, within its limits and the given ones."""
    least, most = params.limits
    values = values + params.zero_point.reshape(()).astype(values.dtype)
    low, high = max(least, least if low is None else low), min(most, most if high is None else high)
    return np.clip(values, low, max(low, high)).astype(params.dtype)


def quantize(values: np.ndarray, params: Params) -> np.ndarray:
    """Return the integers that stand for real numbers: divided in float32, rounded half to even."""
    scale = params.spread(params.scale, values.ndim)
    zero = params.spread(params.zero_point, values.ndim).astype(np.float32)
    integers = np.rint(values.astype(np.float32) / scale) + zero
    return np.clip(integers, *params.limits).astype(params.dtype)


def dequantize(integers: np.ndarray, params: Params) -> np.ndarray:
    """Return the float32 numbers that integers stand for."""
    scale = params.spread(params.scale, integers.ndim)
    zero = params.spread(params.zero_point, integers.ndim).astype(np.int32)
    return (integers.astype(np.int32) - zero).astype(np.float32) * scale
