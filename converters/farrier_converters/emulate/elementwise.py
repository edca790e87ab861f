"""Add, Mul and the global average over integers, in float32 as ONNX Runtime has them and in TFLite's fixed point.

Each takes quantized inputs and the scale of the result, and returns integers with the zero point, not yet clipped.
"""

from __future__ import annotations

import numpy as np

from farrier_contracts.targets import FIXED_POINT

from .rounding import ADD_SHIFT, Params, fixed_point
from .values import Quantized


def add(inputs: tuple[Quantized, ...], params: Params, rule: str) -> np.ndarray:
    """Return a + b. ONNX Runtime: QLinearAdd, fused multiply-adds; TFLite: ADD, `AddElementwise`."""
    a, b = inputs
    wanted, zero = params.scale.reshape(()), params.zero_point.reshape(())
    if rule == FIXED_POINT:
        first, second = float(a.params.scale.reshape(())), float(b.params.scale.reshape(()))
        twice = 2.0 * max(first, second)
        left = fixed_point(_centred(a) << ADD_SHIFT, np.asarray(first / twice))
        right = fixed_point(_centred(b) << ADD_SHIFT, np.asarray(second / twice))
        factor = np.asarray(twice / ((1 << ADD_SHIFT) * float(wanted)))
        return fixed_point(left + right, factor) + zero.astype(np.int64)
    left, right = a.params.scale.reshape(()) / wanted, b.params.scale.reshape(()) / wanted
    zeros = _fused(_zero(a), left, right * _zero(b))
    return np.rint(_fused(a.integers, left, _fused(b.integers, right, zero.astype(np.float32) - zeros)))


def multiply(inputs: tuple[Quantized, ...], params: Params, rule: str) -> np.ndarray:
    """Return a * b. ONNX Runtime: QLinearMul; TFLite: MUL, one fixed-point factor."""
    a, b = inputs
    scales = (a.params.scale.reshape(()), b.params.scale.reshape(()), params.scale.reshape(()))
    zero = params.zero_point.reshape(())
    if rule == FIXED_POINT:
        first, second, wanted = (float(s) for s in scales)
        factor = np.asarray(first * second / wanted)
        return fixed_point(_centred(a) * _centred(b), factor) + zero.astype(np.int64)
    factor = scales[0] * scales[1] / scales[2]
    return np.rint(a.centred() * b.centred() * factor + zero.astype(np.float32))


def global_average(inputs: tuple[Quantized, ...], params: Params, rule: str) -> np.ndarray:
    """Return the mean over every axis behind the channels: one scaled sum, in both kinds of engine."""
    (a,) = inputs
    axes = tuple(range(2, a.integers.ndim))
    count = int(np.prod([a.integers.shape[axis] for axis in axes]))
    sums = _centred(a).sum(axis=axes, keepdims=True)
    given, wanted = a.params.scale.reshape(()), params.scale.reshape(())
    zero = params.zero_point.reshape(())
    if rule == FIXED_POINT:
        return fixed_point(sums, np.asarray(float(given) / (float(wanted) * count))) + zero.astype(np.int64)
    factor = given / (wanted * np.float32(count))
    return np.rint(sums.astype(np.float32) * factor) + zero.astype(np.float32)


def _fused(values: np.ndarray, factor: np.ndarray, constant: np.ndarray) -> np.ndarray:
    """Return values * factor + constant rounded once to float32, as a fused multiply-add does.

    A product of an 8-bit integer and a float32 has no more than 32 digits, so float64 rounds nothing that matters.
    """
    return (values.astype(np.float64) * factor + constant).astype(np.float32)


def _centred(value: Quantized) -> np.ndarray:
    return value.integers.astype(np.int64) - value.params.zero_point.astype(np.int64).reshape(())


def _zero(value: Quantized) -> np.ndarray:
    return value.params.zero_point.reshape(()).astype(np.float32)


COMPUTE = {"Add": add, "Mul": multiply, "GlobalAveragePool": global_average}
