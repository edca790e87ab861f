"""Functions in 32-bit fixed point, as TFLite's reference kernels compute them. Numpy alone; integers in int64 arrays.

A number in format Qm is an int32 that stands for integer * 2^(m - 31). Source of the formats, polynomials and
iterations: gemmlowp, fixedpoint/fixedpoint.h; of `reciprocal`, `inverse_root` and `logarithm`:
tensorflow/lite/kernels/internal/common.h.
"""

from __future__ import annotations

import math

import numpy as np

LEAST, MOST = -(1 << 31), (1 << 31) - 1
NEWTON_STEPS = 3
ROOT_STEPS = 5


def constant(real: float, integer_bits: int = 0) -> int:
    """Return a real number in the format Q`integer_bits`."""
    return round(real * (1 << (31 - integer_bits)))


def high_product(a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
    """Return the upper half of the doubled product, rounded, ties towards plus infinity; formats add up."""
    product = np.asarray(a, np.int64) * b
    high = (product + (1 << 30)) >> 31
    return np.minimum(high, MOST)  # only (-1) * (-1) needs it


def divided(values: np.ndarray, bits: int | np.ndarray) -> np.ndarray:
    """Return values / 2^bits, rounded, ties away from zero."""
    half = np.where(np.asarray(bits) > 0, (np.int64(1) << bits) >> 1, 0)
    return (values + half - ((values < 0) & (half > 0))) >> bits


def widened(values: np.ndarray, bits: int | np.ndarray) -> np.ndarray:
    """Return values * 2^bits, saturated to 32 bits."""
    return np.clip(values << bits, LEAST, MOST)


def exponential(values: np.ndarray) -> np.ndarray:
    """Return exp(x) in Q0 for x <= 0 in Q5: a Taylor series around -1/8, and one factor for each bit above 1/4."""
    quarter = 1 << 24
    rest = (values & (quarter - 1)) - quarter
    x = widened(rest, 5) + (1 << 28)
    square = high_product(x, x)
    cube, fourth = high_product(square, x), high_product(square, square)
    tail = high_product(divided(fourth, 2) + cube, constant(1 / 3)) + square
    start = constant(math.exp(-1 / 8))
    result = start + high_product(x + divided(tail, 1), start)
    remainder = rest - values
    for power in range(-2, 5):
        bit = 1 << (26 + power)
        result = np.where(remainder & bit, high_product(result, constant(math.exp(-(2.0**power)))), result)
    return np.where(values == 0, MOST, result)


def one_over_one_plus(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + x) in Q0 for x in [0, 1) in Q0, by Newton's iteration."""
    half = (np.asarray(values, np.int64) + MOST + 1) >> 1
    x = constant(48 / 17, 2) + high_product(half, constant(-32 / 17, 2))
    for _ in range(NEWTON_STEPS):
        error = (1 << 29) - high_product(half, x)
        x = x + widened(high_product(x, error), 2)
    return widened(x, 1)


def reciprocal(values: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (a, n) with 1/x = a * 2^-n, a in Q0, for x > 0 in Q`integer_bits`."""
    headroom = leading_zeros(values)
    shifted = (values << headroom) - (1 << 31)
    return one_over_one_plus(shifted), integer_bits - headroom


def inverse_root(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (m, e) with 1/sqrt(x) = m * 2^(e - 31) of integers x >= 0; 0 counts as 1."""
    numbers = np.asarray(values, np.int64)
    x = np.maximum(numbers, 2)
    shift = np.full(x.shape, 11, np.int64)
    for _ in range(2):  # 2^31 needs no more
        large = x >= 1 << 29
        x, shift = np.where(large, x >> 2, x), shift + large
    pairs = (leading_zeros(x) - 1) // 2 - 1
    shift -= pairs
    x = x << (2 * pairs)
    half_input = divided(x >> 1, 1)
    three_halves = (1 << 28) + (1 << 27)
    root = np.full(x.shape, 1 << 28, np.int64)  # one, in Q3
    for _ in range(ROOT_STEPS):
        cube = widened(high_product(high_product(root, root), root), 6)
        root = widened(high_product(root, three_halves) - high_product(half_input, cube), 3)
    root = high_product(root, constant(math.sqrt(2) / 2))
    root = root << np.maximum(-shift, 0)
    exponent = -np.maximum(shift, 0)
    one = numbers <= 1
    return np.where(one, MOST, root), np.where(one, 0, exponent)


def logarithm(values: np.ndarray, integer_bits: int, result_bits: int) -> np.ndarray:
    """Return log(x) in Q`result_bits` for x >= 1 in Q`integer_bits`.

    x = 2^n * r with r near 2^(-1/4), of two ways to choose n; log(r) is a quotient of polynomials in r - 2^(-1/4).
    """
    bits = result_bits + 1  # one more for the sum before it is rounded
    sqrt_half, center = constant(math.sqrt(0.5)), constant(0.5**0.25)
    quarter = divided(np.asarray(1 << 29), bits)
    shift_a = leading_zeros(values)
    r_a = widened(high_product(widened(values, shift_a - 1), sqrt_half), 1)
    power_a = widened(integer_bits - shift_a, 31 - bits) + quarter
    shift_b = leading_zeros(high_product(values, sqrt_half)) - 1
    r_b = widened(values, shift_b)
    power_b = widened(integer_bits - shift_b, 31 - bits) - quarter
    r, power = np.minimum(r_a, r_b), np.maximum(power_a, power_b)
    q = 2 * (r - center)
    square = high_product(q, q)
    numerator = high_product(q, r) + high_product(high_product(q, square), constant(11 / 240 * 2**0.25))
    inner = constant(2 * 0.5**0.25 - 2**0.25) + q + high_product(square, constant(1 / 20 * 2**0.25))
    denominator = high_product(_half_sum(r, center), inner) + high_product(q, constant(1 / 4 * 2**0.25))
    share = high_product(divided(numerator, bits), one_over_one_plus(denominator))
    return widened(high_product(power, constant(math.log(2))) + share, 1)


def _half_sum(a: np.ndarray, b: int) -> np.ndarray:
    """Return (a + b) / 2, rounded away from zero."""
    total = a + b
    return np.sign(total) * ((np.abs(total) + 1) >> 1)


def leading_zeros(values: np.ndarray) -> np.ndarray:
    """Count the zero bits before the first one of positive 32-bit integers."""
    _, exponent = np.frexp(np.asarray(values, np.float64))
    return 32 - exponent.astype(np.int64)
