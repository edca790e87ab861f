"""Functions in fixed point, as TFLite's reference kernels compute them. Numpy alone; integers in int64 arrays.

A number in format Qm is an integer of 16 or 32 bits that stands for integer * 2^(m + 1 - bits). Source of the formats,
polynomials and iterations: gemmlowp, fixedpoint/fixedpoint.h; of `reciprocal`, `inverse_root` and `logarithm`:
tensorflow/lite/kernels/internal/common.h.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NEWTON_STEPS = 3
ROOT_STEPS = 5


@dataclass(frozen=True)
class Fixed:
    """Arithmetic on integers of so many bits."""

    bits: int

    @property
    def most(self) -> int:
        """The largest integer, which stands for one in Q0."""
        return (1 << (self.bits - 1)) - 1

    @property
    def least(self) -> int:
        """The smallest integer."""
        return -(1 << (self.bits - 1))

    def one(self, integer_bits: int) -> int:
        """Return one in a format above Q0."""
        return 1 << (self.bits - 1 - integer_bits)

    def constant(self, real: float, integer_bits: int = 0) -> int:
        """Return a real number; those of 16 bits are rounded ones of 32."""
        wide = np.asarray(round(real * (1 << (31 - integer_bits))))
        return int(divided(wide, 32 - self.bits))

    def product(self, a: np.ndarray, b: np.ndarray | int) -> np.ndarray:
        """Return the upper half of the doubled product, ties towards plus infinity; formats add up."""
        high = (np.asarray(a, np.int64) * b + (1 << (self.bits - 2))) >> (self.bits - 1)
        return np.minimum(high, self.most)  # only (-1) * (-1) needs it

    def widened(self, values: np.ndarray, bits: int | np.ndarray) -> np.ndarray:
        """Return values * 2^bits, saturated."""
        return np.clip(values << bits, self.least, self.most)

    def exponential(self, values: np.ndarray, integer_bits: int) -> np.ndarray:
        """Return exp(x) in Q0 for x <= 0 in Q`integer_bits`; 0 below -32.

        A Taylor series around -1/8 for what is left after multiples of 1/4, and one factor for each bit of these.
        """
        quarter = self.one(integer_bits) >> 2
        rest = (values & (quarter - 1)) - quarter
        x = self.widened(rest, integer_bits) + self.one(3)
        square = self.product(x, x)
        cube, fourth = self.product(square, x), self.product(square, square)
        tail = self.product(divided(fourth, 2) + cube, self.constant(1 / 3)) + square
        start = self.constant(math.exp(-1 / 8))
        result = np.minimum(start + self.product(x + divided(tail, 1), start), self.most)
        remainder = rest - values
        for power in range(-2, min(integer_bits, 5)):
            factor = self.constant(math.exp(-(2.0**power)))
            bit = quarter << (power + 2)
            result = np.where(remainder & bit, self.product(result, factor), result)
        if integer_bits > 5:
            result = np.where(values < -32 * self.one(integer_bits), 0, result)
        return np.where(values == 0, self.most, result)

    def one_over_one_plus(self, values: np.ndarray) -> np.ndarray:
        """Return 1 / (1 + x) in Q0 for x in [0, 1) in Q0."""
        return self.widened(self._double_inverse(values), 1)

    def logistic(self, values: np.ndarray, integer_bits: int) -> np.ndarray:
        """Return 1 / (1 + exp(-x)) in Q0."""
        positive = self.one_over_one_plus(self.exponential(-np.abs(values), integer_bits))
        found = np.where(values > 0, positive, self.most - positive)
        return np.where(values == 0, self.one(1), found)

    def tanh(self, values: np.ndarray, integer_bits: int) -> np.ndarray:
        """Return tanh(x) in Q0, as (1 - e) / (1 + e) with e = exp(-2 x)."""
        power = self.exponential(-np.abs(values), integer_bits + 1)
        positive = self.widened(self._double_inverse(power) - self.one(2), 2)
        return np.sign(values) * positive

    def _double_inverse(self, values: np.ndarray) -> np.ndarray:
        """Return 2 / (1 + x) in Q2 for x in [0, 1) in Q0, by Newton's iteration."""
        half = (np.asarray(values, np.int64) + self.most + 1) >> 1
        x = self.constant(48 / 17, 2) + self.product(half, self.constant(-32 / 17, 2))
        for _ in range(NEWTON_STEPS):
            error = self.one(2) - self.product(half, x)
            x = x + self.widened(self.product(x, error), 2)
        return x


WIDE, NARROW = Fixed(32), Fixed(16)


def divided(values: np.ndarray, bits: int | np.ndarray) -> np.ndarray:
    """Return values / 2^bits, rounded, ties away from zero."""
    half = np.where(np.asarray(bits) > 0, (np.int64(1) << bits) >> 1, 0)
    return (values + half - ((values < 0) & (half > 0))) >> bits


def reciprocal(values: np.ndarray, integer_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (a, n) with 1/x = a * 2^-n, a in Q0, for 32-bit x > 0 in Q`integer_bits`."""
    headroom = leading_zeros(values)
    shifted = (values << headroom) - (1 << 31)
    return WIDE.one_over_one_plus(shifted), integer_bits - headroom


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
    three_halves = WIDE.constant(1.5, 3)
    root = np.full(x.shape, WIDE.one(3), np.int64)
    for _ in range(ROOT_STEPS):
        cube = WIDE.widened(WIDE.product(WIDE.product(root, root), root), 6)
        root = WIDE.widened(WIDE.product(root, three_halves) - WIDE.product(half_input, cube), 3)
    root = WIDE.product(root, WIDE.constant(math.sqrt(0.5)))
    root = root << np.maximum(-shift, 0)
    exponent = -np.maximum(shift, 0)
    small = numbers <= 1
    return np.where(small, WIDE.most, root), np.where(small, 0, exponent)


def logarithm(values: np.ndarray, integer_bits: int, result_bits: int) -> np.ndarray:
    """Return log(x) in Q`result_bits` for 32-bit x >= 1 in Q`integer_bits`.

    x = 2^n * r with r near 2^(-1/4), of two ways to choose n; log(r) is a quotient of polynomials in r - 2^(-1/4).
    """
    bits = result_bits + 1  # one more for the sum before it is rounded
    constant, product, widened = WIDE.constant, WIDE.product, WIDE.widened
    center = constant(0.5**0.25)
    quarter = divided(np.asarray(constant(0.25)), bits)
    shift_a = leading_zeros(values)
    r_a = widened(product(widened(values, shift_a - 1), constant(math.sqrt(0.5))), 1)
    power_a = widened(integer_bits - shift_a, 31 - bits) + quarter
    shift_b = leading_zeros(product(values, constant(math.sqrt(0.5)))) - 1
    r_b = widened(values, shift_b)
    power_b = widened(integer_bits - shift_b, 31 - bits) - quarter
    r, power = np.minimum(r_a, r_b), np.maximum(power_a, power_b)
    q = 2 * (r - center)
    square = product(q, q)
    numerator = product(q, r) + product(product(q, square), constant(11 / 240 * 2**0.25))
    inner = constant(2 * 0.5**0.25 - 2**0.25) + q + product(square, constant(1 / 20 * 2**0.25))
    denominator = product(_half_sum(r, center), inner) + product(q, constant(1 / 4 * 2**0.25))
    share = product(divided(numerator, bits), WIDE.one_over_one_plus(denominator))
    return widened(product(power, constant(math.log(2))) + share, 1)


def _half_sum(a: np.ndarray, b: int) -> np.ndarray:
    """Return (a + b) / 2, rounded away from zero."""
    total = a + b
    return np.sign(total) * ((np.abs(total) + 1) >> 1)


def leading_zeros(values: np.ndarray) -> np.ndarray:
    """Count the zero bits before the first one of positive 32-bit integers."""
    _, exponent = np.frexp(np.asarray(values, np.float64))
    return 32 - exponent.astype(np.int64)
