"""Functions of one 8-bit integer: each is computed for all 256 of them and looked up.

Source: tensorflow/lite/kernels/activations.cc, elementwise.cc, elu.cc, exp.cc, internal/reference/leaky_relu.h,
prelu.h, hard_swish.h, gelu.h; tables of real functions: `LUTPopulate` in internal/common.h. Those tables come from the
C library's functions of float32; here all but the exponential are computed in doubles and rounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ...rounding import multiplied
from .. import fixed, libm
from ..call import BYTES, Call, KernelError, factor, quantum, round_away, scale_of, zero_point
from .floats import FLOAT_FUNCTIONS, Function, logistic, rounded, unary

Integers = Callable[[Call, np.ndarray], np.ndarray]  # centred inputs to results, zero point not yet added

RSQRT_BITS = 20


def lookup(call: Call, results: np.ndarray) -> np.ndarray:
    """Return `results`, one for each integer of the input's type from the smallest on, at the input's places."""
    least = int(np.iinfo(call.given(0).dtype).min)
    return results[call.value(0).astype(np.int64) - least]


def all_centred(call: Call) -> np.ndarray:
    """Return every integer that the input's type has, less its zero point: int64."""
    if call.given(0).dtype not in BYTES:
        raise KernelError(f"an input of type {call.given(0).dtype}")
    info = np.iinfo(call.given(0).dtype)
    return np.arange(info.min, info.max + 1, dtype=np.int64) - zero_point(call.given(0))


def _table(call: Call, function: Integers) -> np.ndarray:
    return lookup(call, call.finish(function(call, all_centred(call)), activation=0))


def _relu(call: Call, activation: int) -> np.ndarray:
    """RELU, RELU6 and RELU_N1_TO_1, by the number of the fused activation that is the same."""
    return lookup(call, call.finish(rescaled(call, all_centred(call)), activation=activation))


def rescaled(call: Call, values: np.ndarray) -> np.ndarray:
    """Return centred inputs in the result's scale; the factor is computed in float32."""
    return multiplied(values, *factor(float(scale_of(call.given(0)) / scale_of(call.output))))


def requantized(call: Call, values: np.ndarray) -> np.ndarray:
    """Return centred inputs in the result's scale; the factor is computed in doubles (QUANTIZE)."""
    return multiplied(values, *factor(quantum(call.given(0))[0] / quantum(call.output)[0]))


def _leaky_relu(call: Call, values: np.ndarray) -> np.ndarray:
    alpha = np.float32(call.operator.options["alpha"])
    real = float(scale_of(call.given(0)) * alpha / scale_of(call.output))
    falling = multiplied(values, *factor(abs(real)))
    return np.where(values >= 0, rescaled(call, values), falling if real >= 0 else -falling)


def _prelu(call: Call) -> np.ndarray:
    values, alphas = call.centred(0), call.centred(1)
    if np.broadcast_shapes(values.shape, alphas.shape) != values.shape:
        raise KernelError("its slopes do not fit the input")
    real = float(scale_of(call.given(0)) * scale_of(call.given(1)) / scale_of(call.output))
    falling = multiplied(values * alphas, *factor(real))
    return call.finish(np.where(values >= 0, rescaled(call, values), falling), activation=0)


def _hard_swish(call: Call, values: np.ndarray) -> np.ndarray:
    """x * relu6(x + 3) / 6 in 16-bit fixed point, of inputs with 7 more bits."""
    short = fixed.NARROW
    fine = np.float32(1 / 128) * scale_of(call.given(0))
    wide = values << 7
    multiplier, exponent = _short_factor(float(fine / scale_of(call.output)))
    if exponent > 0:
        raise KernelError("its result has a finer scale than 1/128 of the input's, which TFLite refuses")
    scaled = short.product(wide, multiplier)
    slope_multiplier, slope_exponent = _short_factor(float(fine / (np.float32(3) / np.float32(32768))))
    slope = wide if slope_exponent <= 0 else short.widened(wide, slope_exponent - 1)
    slope = short.product(slope, slope_multiplier)
    slope = short.widened(slope, 1) if slope_exponent > 0 else fixed.divided(slope, -slope_exponent)
    slope = (slope + (1 << 15)) >> 1
    doubled = slope * scaled
    return fixed.divided(np.sign(doubled) * (np.abs(doubled) >> 15), -exponent)


def _short_factor(real: float) -> tuple[int, int]:
    """Return a factor as a 15-bit integer and an exponent; `DownScaleInt32ToInt16Multiplier`."""
    multiplier, exponent = factor(real)
    return min((int(multiplier) + (1 << 15)) >> 16, (1 << 15) - 1), int(exponent)


def _rsqrt(call: Call, values: np.ndarray) -> np.ndarray:
    if (call.centred(0) < 0).any():
        raise KernelError("it meets a negative number, which TFLite refuses")
    roots, exponents = fixed.inverse_root(np.maximum(values, 1))
    data = multiplied(np.ones_like(values), roots, exponents + RSQRT_BITS)
    real = 1.0 / float(np.sqrt(scale_of(call.given(0))) * scale_of(call.output))
    multiplier, exponent = factor(real)
    most = np.iinfo(call.output.dtype).max - zero_point(call.output)  # what zero becomes
    return np.where(values > 0, multiplied(data, multiplier, exponent - RSQRT_BITS), most)


def _abs(call: Call, values: np.ndarray) -> np.ndarray:
    same = scale_of(call.given(0)) == scale_of(call.output)
    return np.abs(values) if same else rescaled(call, np.abs(values))


def _real(call: Call, function: Function) -> np.ndarray:
    """Look a real function up in a table of float32 results."""
    inputs = scale_of(call.given(0)) * all_centred(call).astype(np.float32)
    with np.errstate(all="ignore"):
        results = function(inputs) * (np.float32(1) / scale_of(call.output))
    least = np.float32(zero_point(call.output))
    quanta = (round_away(results).astype(np.float32) + least).astype(np.float64)
    info = np.iinfo(call.output.dtype)
    return lookup(call, np.clip(np.trunc(quanta), info.min, info.max).astype(call.output.dtype))


def _log(call: Call) -> np.ndarray:
    """Numbers that have no logarithm get the smallest integer."""
    least = np.float32(np.iinfo(call.output.dtype).min - zero_point(call.output)) * scale_of(call.output)
    return _real(call, lambda x: np.where(x > 0, rounded(np.log)(x), least))


def _elu(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0, rounded(np.expm1)(x), x)


def _gelu(call: Call) -> np.ndarray:
    return _real(call, _gelu_by_tanh if call.option("approximate") else _gelu_by_erfc)


def _gelu_by_erfc(x: np.ndarray) -> np.ndarray:
    falling = x * np.float32(-math.sqrt(0.5))
    return np.float32(0.5) * x * np.array([math.erfc(v) for v in falling], np.float32)


def _gelu_by_tanh(x: np.ndarray) -> np.ndarray:
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    return np.float32(0.5) * x * (np.float32(1) + rounded(np.tanh)(inner))


_INTEGERS: dict[str, Callable[[Call], np.ndarray]] = {
    "RELU": partial(_relu, activation=1),
    "RELU_N1_TO_1": partial(_relu, activation=2),
    "RELU6": partial(_relu, activation=3),
    "LEAKY_RELU": partial(_table, function=_leaky_relu),
    "PRELU": _prelu,
    "HARD_SWISH": partial(_table, function=_hard_swish),
    "RSQRT": partial(_table, function=_rsqrt),
    "ABS": partial(_table, function=_abs),
    "LOGISTIC": partial(_real, function=logistic),
    "TANH": partial(_real, function=rounded(np.tanh)),
    "EXP": partial(_real, function=libm.exp),
    "ELU": partial(_real, function=_elu),
    "LOG": _log,
    "GELU": _gelu,
}


def _either(name: str) -> Callable[[Call], np.ndarray]:
    integers = _INTEGERS.get(name)

    def kernel(call: Call) -> np.ndarray:
        return integers(call) if integers is not None and call.quantized else unary(call)

    return kernel


ACTIVATIONS: dict[str, Callable[[Call], np.ndarray]] = {
    name: _either(name) for name in (*_INTEGERS, *(n for n in FLOAT_FUNCTIONS if n not in _INTEGERS))
}
