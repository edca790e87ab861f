"""Softmax and its logarithm over 8-bit integers.

Source: tensorflow/lite/kernels/internal/reference/softmax.h and integer_ops/log_softmax.h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...rounding import multiplied
from .. import fixed
from ..call import BYTES, Call, KernelError, factor, quantum
from .floats import float_log_softmax, float_softmax

DIFFERENCE_BITS = 5  # integer bits of a difference to the largest input
SUM_BITS = 12  # integer bits of the sum of exponentials
LOG_BITS = 4  # integer bits of a logarithm
LARGEST_FACTOR = (1 << 31) - 1.0


def softmax(call: Call) -> np.ndarray:
    """SOFTMAX over the last axis; 8-bit results have the scale 1/256 whatever the file says."""
    if call.output.dtype == "float32":
        return float_softmax(call)
    if call.output.dtype not in BYTES or call.given(0).dtype != call.output.dtype:
        raise KernelError(f"SOFTMAX from {call.given(0).dtype} to {call.output.dtype}")
    differences = _differences(call, float(np.float32(call.operator.options["beta"])))
    values = call.value(0).astype(np.int64)
    below = values.max(axis=-1, keepdims=True) - values
    powers = differences.powers()[below]
    shares, bits = fixed.reciprocal(_total(powers), SUM_BITS)
    info = np.iinfo(call.output.dtype)
    results = fixed.divided(fixed.WIDE.product(shares, powers), bits + 31 - 8) + info.min
    return np.where(powers > 0, np.clip(results, info.min, info.max), info.min).astype(call.output.dtype)


def log_softmax(call: Call) -> np.ndarray:
    """LOG_SOFTMAX over the last axis; int8 results have the scale 1/16 and the zero point 127."""
    if call.output.dtype == "float32":
        return float_log_softmax(call)
    if call.output.dtype != "int8" or call.given(0).dtype != "int8":
        raise KernelError(f"LOG_SOFTMAX from {call.given(0).dtype} to {call.output.dtype}")
    differences = _differences(call, 1.0)
    values = call.value(0).astype(np.int64)
    below = values.max(axis=-1, keepdims=True) - values
    logs = fixed.logarithm(_total(differences.powers()[below]), SUM_BITS, DIFFERENCE_BITS)
    least = np.maximum(-differences.radius - 1, differences.unscaled(logs + fixed.WIDE.least))
    scaled = differences.scaled()[below]
    results = fixed.divided(scaled - logs, 31 - DIFFERENCE_BITS - LOG_BITS) + 127
    return np.where(-below > least, np.clip(results, -128, 127), -128).astype(np.int8)


@dataclass(frozen=True)
class Differences:
    """How a difference of 0..255 to the largest input becomes a number in Q5."""

    multiplier: int
    shift: int
    radius: int  # the largest that is not left out

    def scaled(self) -> np.ndarray:
        """Return -d * scale in Q5 for d = 0..255; 0 where it is left out."""
        steps = np.arange(256, dtype=np.int64)
        return fixed.WIDE.product(np.where(steps <= self.radius, -steps, 0) << self.shift, self.multiplier)

    def powers(self) -> np.ndarray:
        """Return exp(-d * scale) in Q0 for d = 0..255; 0 where the term is left out."""
        return np.where(
            np.arange(256) <= self.radius, fixed.WIDE.exponential(self.scaled(), DIFFERENCE_BITS), 0
        )

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        """Return numbers in Q5 as differences: the way back, with a 31-bit factor of its own."""
        multiplier, exponent = factor((1 << (31 - self.shift)) / self.multiplier)
        return multiplied(values, multiplier, exponent)


def _differences(call: Call, beta: float) -> Differences:
    real = beta * quantum(call.given(0))[0]
    multiplier, shift = factor(min(real * (1 << (31 - DIFFERENCE_BITS)), LARGEST_FACTOR))
    if shift < 0 or real <= 0:
        raise KernelError("its input has a scale that TFLite refuses")
    span = ((1 << DIFFERENCE_BITS) - 1) * (1 << (31 - DIFFERENCE_BITS))
    return Differences(int(multiplier), int(shift), math.floor(span / (1 << int(shift))))


def _total(powers: np.ndarray) -> np.ndarray:
    """Return the sum of exponentials in Q12."""
    sums = fixed.divided(powers, SUM_BITS).sum(axis=-1, keepdims=True)
    if sums.max(initial=0) > fixed.WIDE.most:
        raise KernelError("its axis is too long for TFLite's sums")
    return sums


SOFTMAX: dict[str, Callable[[Call], np.ndarray]] = {"SOFTMAX": softmax, "LOG_SOFTMAX": log_softmax}
