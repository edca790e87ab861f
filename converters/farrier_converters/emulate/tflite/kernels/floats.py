"""What a quantized network computes before its QUANTIZE and behind its DEQUANTIZE, and with shapes.

Sums, products and quotients of float32 are what any processor gives, and the exponential is the C library's. Other
transcendental functions are computed in doubles and rounded; a C library's may differ in the last bit.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ....tflite import schema
from .. import libm
from ..call import ACTIVATION_BOUNDS, BYTES, Call, KernelError

Function = Callable[[np.ndarray], np.ndarray]


def plain(call: Call) -> np.ndarray:
    """ADD, SUB, MUL, DIV and SQUARED_DIFFERENCE of float32 or of integers without a scale."""
    left, right = call.value(0), call.value(1)
    if left.dtype != right.dtype or left.dtype.name in BYTES or left.dtype.kind not in "fi":
        raise KernelError(f"operands of types {left.dtype} and {right.dtype}")
    with np.errstate(all="ignore"):
        found = _COMPUTE[call.operator.name](left, right)
    return _clipped(call, found)


def _divided(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    if left.dtype.kind == "f":
        return left / right
    if (right == 0).any():
        raise KernelError("it divides an integer by zero")
    quotient = np.abs(left) // np.abs(right)
    return np.where((left < 0) == (right < 0), quotient, -quotient).astype(left.dtype)


def _squared_difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    difference = left - right
    return difference * difference


_COMPUTE: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ADD": np.add,
    "SUB": np.subtract,
    "MUL": np.multiply,
    "DIV": _divided,
    "SQUARED_DIFFERENCE": _squared_difference,
}


def _clipped(call: Call, values: np.ndarray) -> np.ndarray:
    """Apply a fused activation."""
    name = schema.ACTIVATIONS.get(int(call.operator.options.get("activation", 0)), "")
    if name not in ACTIVATION_BOUNDS:
        return values
    low, high = ACTIVATION_BOUNDS[name]
    return np.minimum(np.maximum(values, values.dtype.type(low)), np.float64(high)).astype(values.dtype)


def unary(call: Call) -> np.ndarray:
    """Return a real function of float32."""
    name, values = call.operator.name, call.value(0)
    if values.dtype != np.float32 or name not in FLOAT_FUNCTIONS:
        raise KernelError(f"{name} of {values.dtype}")
    with np.errstate(all="ignore"):
        return FLOAT_FUNCTIONS[name](values)


def float_softmax(call: Call) -> np.ndarray:
    """SOFTMAX of float32 over the last axis; the sum is taken from left to right, as a loop would."""
    values = call.value(0)
    beta = np.float32(call.operator.options["beta"])
    powers = libm.exp((values - values.max(axis=-1, keepdims=True)) * beta)
    return powers / np.add.accumulate(powers, axis=-1, dtype=np.float32)[..., -1:]


def float_log_softmax(call: Call) -> np.ndarray:
    """LOG_SOFTMAX of float32 over the last axis."""
    values = call.value(0)
    below = values - values.max(axis=-1, keepdims=True)
    sums = np.add.accumulate(libm.exp(below), axis=-1, dtype=np.float32)[..., -1:]
    return below - rounded(np.log)(sums)


def power(call: Call) -> np.ndarray:
    """POW of float32."""
    left, right = call.value(0), call.value(1)
    if left.dtype != np.float32 or right.dtype != np.float32:
        raise KernelError(f"POW of {left.dtype} and {right.dtype}")
    with np.errstate(all="ignore"):
        return np.power(left.astype(np.float64), right.astype(np.float64)).astype(np.float32)


def rounded(function: Function) -> Function:
    """Compute a function of float32 in doubles, and round it to float32."""
    return lambda values: function(values.astype(np.float64)).astype(np.float32)


def logistic(values: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-x)) of float32, each step rounded."""
    return np.float32(1) / (np.float32(1) + libm.exp(-values))


def _between(low: float, high: float) -> Function:
    return lambda values: np.clip(values, np.float32(low), np.float32(high))


FLOAT_FUNCTIONS: dict[str, Function] = {
    "ABS": np.abs,
    "NEG": np.negative,
    "SQUARE": np.square,
    "SQRT": np.sqrt,
    "RSQRT": lambda values: np.float32(1) / np.sqrt(values),
    "SIN": rounded(np.sin),
    "COS": rounded(np.cos),
    "SIGN": np.sign,
    "FLOOR": np.floor,
    "CEIL": np.ceil,
    "ROUND": np.rint,
    "EXP": libm.exp,
    "LOG": rounded(np.log),
    "TANH": rounded(np.tanh),
    "LOGISTIC": logistic,
    **{name: _between(*bounds) for name, bounds in ACTIVATION_BOUNDS.items()},
}
