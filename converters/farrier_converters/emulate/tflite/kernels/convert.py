"""Between real numbers, scaled integers and other types.

Source: tensorflow/lite/kernels/quantize.cc, dequantize.cc, cast.cc, internal/reference/quantize.h, requantize.h.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..call import BYTES, Call, KernelError, round_away, scale_of, zero_point
from .activations import all_centred, lookup, requantized


def quantize(call: Call) -> np.ndarray:
    """QUANTIZE: real numbers to 8 bits, or 8 bits to another scale."""
    if call.output.dtype not in BYTES:
        raise KernelError(f"QUANTIZE to {call.output.dtype}")
    if call.given(0).dtype in BYTES:
        return lookup(call, call.finish(requantized(call, all_centred(call)), activation=0))
    if call.given(0).dtype != "float32":
        raise KernelError(f"QUANTIZE of {call.given(0).dtype}")
    info = np.iinfo(call.output.dtype)
    with np.errstate(all="ignore"):
        quanta = round_away(call.value(0) / scale_of(call.output)) + zero_point(call.output)
    return np.clip(np.nan_to_num(quanta, nan=info.min), info.min, info.max).astype(call.output.dtype)


def dequantize(call: Call) -> np.ndarray:
    """DEQUANTIZE to float32: float16, or integers with one scale or one for each part along an axis."""
    given, values = call.given(0), call.value(0)
    if given.dtype == "float16":
        return values.astype(np.float32)
    if given.dtype not in ("int8", "uint8", "int16", "int32"):
        raise KernelError(f"DEQUANTIZE of {given.dtype}")
    if given.scales.size <= 1:
        return (values.astype(np.int64) - zero_point(given)).astype(np.float32) * scale_of(given)
    shape = [1] * values.ndim
    shape[call.axis(given.axis, values.ndim)] = -1
    zeros = given.zero_points if given.zero_points.size else np.zeros(given.scales.size, np.int64)
    centred = values.astype(np.int64) - zeros.reshape(shape)
    return centred.astype(np.float32) * given.scales.reshape(shape)


def cast(call: Call) -> np.ndarray:
    """CAST between numbers without a scale; what does not fit is undefined in TFLite and wraps here."""
    with np.errstate(all="ignore"):
        return call.value(0).astype(call.output.dtype)


CONVERT: dict[str, Callable[[Call], np.ndarray]] = {
    "QUANTIZE": quantize,
    "DEQUANTIZE": dequantize,
    "CAST": cast,
}
