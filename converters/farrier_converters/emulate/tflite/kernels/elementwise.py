"""Operators of two tensors, broadcast against each other.

Source: tensorflow/lite/kernels/{add, sub, mul, squared_difference, maximum_minimum}.cc and
internal/reference/integer_ops/{add, mul}.h.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...rounding import ADD_SHIFT, multiplied
from ..call import Call, KernelError, factor, quantum, scale_of
from .floats import plain, power

SQUARE_SHIFT = 7  # bits that SQUARED_DIFFERENCE gives its inputs before it scales them


def add(call: Call) -> np.ndarray:
    """ADD."""
    return _sum(call, 1)


def sub(call: Call) -> np.ndarray:
    """SUB."""
    return _sum(call, -1)


def _sum(call: Call, sign: int) -> np.ndarray:
    """Both inputs get twice the larger of their scales, and 20 more bits; their sum is scaled back."""
    twice = _twice(call)
    left, right = (_with_scale(call, i, twice, ADD_SHIFT) for i in (0, 1))
    real = twice / ((1 << ADD_SHIFT) * quantum(call.output)[0])
    if sign > 0 and real >= 1:
        raise KernelError("its result has a finer scale than TFLite can add in")
    return call.finish(multiplied(left + sign * right, *factor(real)))


def squared_difference(call: Call) -> np.ndarray:
    """SQUARED_DIFFERENCE."""
    if call.output.dtype != "int8":
        raise KernelError(f"SQUARED_DIFFERENCE of {call.output.dtype}, which TFLite has no kernel for")
    twice = _twice(call)
    difference = _with_scale(call, 0, twice, SQUARE_SHIFT) - _with_scale(call, 1, twice, SQUARE_SHIFT)
    wanted = float(np.float32(1 << (2 * SQUARE_SHIFT)) * scale_of(call.output))
    return call.finish(multiplied(difference * difference, *factor(twice * twice / wanted)), activation=0)


def mul(call: Call) -> np.ndarray:
    """MUL; its factor is computed in float32."""
    real = scale_of(call.given(0)) * scale_of(call.given(1)) / scale_of(call.output)
    return call.finish(multiplied(call.centred(0) * call.centred(1), *factor(float(real))))


def _twice(call: Call) -> float:
    return 2.0 * max(quantum(call.given(0))[0], quantum(call.given(1))[0])


def _with_scale(call: Call, position: int, scale: float, bits: int) -> np.ndarray:
    """Return an input with `bits` more, in another scale: int64."""
    return multiplied(call.centred(position) << bits, *factor(quantum(call.given(position))[0] / scale))


def maximum(call: Call) -> np.ndarray:
    """MAXIMUM; its tensors share one scale."""
    return np.maximum(call.value(0), call.value(1))


def minimum(call: Call) -> np.ndarray:
    """MINIMUM; its tensors share one scale."""
    return np.minimum(call.value(0), call.value(1))


def _either(quantized: Callable[[Call], np.ndarray]) -> Callable[[Call], np.ndarray]:
    """Scaled integers go to the kernel, whatever else to numpy."""

    def kernel(call: Call) -> np.ndarray:
        return quantized(call) if call.quantized else plain(call)

    return kernel


ELEMENTWISE: dict[str, Callable[[Call], np.ndarray]] = {
    "ADD": _either(add),
    "SUB": _either(sub),
    "MUL": _either(mul),
    "SQUARED_DIFFERENCE": _either(squared_difference),
    "DIV": plain,
    "POW": power,
    "MAXIMUM": maximum,
    "MINIMUM": minimum,
}
