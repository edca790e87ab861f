"""Softmax over 8-bit integers; tensorflow/lite/kernels/internal/reference/softmax.h."""

from __future__ import annotations

import math

import numpy as np

from .. import fixed
from ..call import BYTES, Call, KernelError, factor, quantum
from .floats import float_softmax

DIFFERENCE_BITS = 5  # integer bits of a difference to the largest input
SUM_BITS = 12  # integer bits of the sum of exponentials
LARGEST_FACTOR = (1 << 31) - 1.0


def softmax(call: Call) -> np.ndarray:
    """SOFTMAX over the last axis; 8-bit results have the scale 1/256 whatever the file says."""
    if call.output.dtype == "float32":
        return float_softmax(call)
    if call.output.dtype not in BYTES or call.given(0).dtype != call.output.dtype:
        raise KernelError(f"SOFTMAX from {call.given(0).dtype} to {call.output.dtype}")
    exponentials = _exponentials(call)
    values = call.value(0).astype(np.int64)
    below = values.max(axis=-1, keepdims=True) - values
    powers = exponentials[below]
    sums = fixed.divided(powers, SUM_BITS).sum(axis=-1, keepdims=True)
    if sums.max(initial=0) > fixed.MOST:
        raise KernelError("its axis is too long for TFLite's sums")
    shares, bits = fixed.reciprocal(sums, SUM_BITS)
    info = np.iinfo(call.output.dtype)
    results = fixed.divided(fixed.high_product(shares, powers), bits + 31 - 8) + info.min
    return np.where(powers > 0, np.clip(results, info.min, info.max), info.min).astype(call.output.dtype)


def _exponentials(call: Call) -> np.ndarray:
    """Return exp(-d * scale * beta) in Q0 for d = 0..255; 0 where TFLite leaves the term out."""
    real = float(np.float32(call.operator.options["beta"])) * quantum(call.given(0))[0]
    multiplier, shift = factor(min(real * (1 << (31 - DIFFERENCE_BITS)), LARGEST_FACTOR))
    if shift < 0 or real <= 0:
        raise KernelError("its input has a scale that TFLite refuses")
    radius = math.floor(((1 << DIFFERENCE_BITS) - 1) * (1 << (31 - DIFFERENCE_BITS)) / (1 << int(shift)))
    steps = np.arange(256, dtype=np.int64)
    known = np.where(steps <= radius, -steps, 0)
    powers = fixed.exponential(fixed.high_product(known << shift, int(multiplier)))
    return np.where(steps <= radius, powers, 0)
