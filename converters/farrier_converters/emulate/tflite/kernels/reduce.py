"""Operators that make fewer numbers of many along some axes.

Source: tensorflow/lite/kernels/internal/reference/reduce.h, integer_ops/l2normalization.h, l2normalization.h and
kernels/arg_min_max.cc.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ...rounding import multiplied
from .. import fixed
from ..call import BYTES, Call, KernelError, factor, quantum

L2_BITS = 7  # L2_NORMALIZATION's results have the scale 1/128


def _axes(call: Call) -> tuple[int, ...]:
    rank = call.value(0).ndim
    return tuple(sorted({call.axis(axis, rank) for axis in call.integers(1)})) if rank else ()


def _sum(call: Call, *, mean: bool) -> np.ndarray:
    """MEAN divides the multiplier, and loses what does not fit its 31 bits."""
    if not call.quantized:
        return _plain_sum(call, mean=mean)
    axes = _axes(call)
    sums = call.centred(0).sum(axis=axes, keepdims=bool(call.option("keep_dims")), dtype=np.int64)
    multiplier, exponent = factor(quantum(call.given(0))[0] / quantum(call.output)[0])
    if mean:
        count = int(np.prod([call.value(0).shape[axis] for axis in axes], dtype=np.int64))
        if not count:
            raise KernelError("it averages nothing")
        shift = min(count.bit_length() - 1, 32, 31 + int(exponent))
        multiplier, exponent = (multiplier << shift) // count, exponent - shift
    return call.finish(multiplied(sums, multiplier, exponent), activation=0)


def _plain_sum(call: Call, *, mean: bool) -> np.ndarray:
    values, axes = call.value(0), _axes(call)
    if values.dtype.kind != "i" or values.dtype.name in BYTES:
        raise KernelError(f"{call.operator.name} of {values.dtype}")
    sums = values.sum(axis=axes, keepdims=bool(call.option("keep_dims")), dtype=np.int64)
    if mean:
        count = int(np.prod([values.shape[axis] for axis in axes], dtype=np.int64))
        sums = np.sign(sums) * (np.abs(sums) // max(count, 1))
    return sums.astype(values.dtype)


def _extreme(call: Call, *, largest: bool) -> np.ndarray:
    """REDUCE_MAX and REDUCE_MIN; input and result share one scale."""
    function = np.max if largest else np.min
    return function(call.value(0), axis=_axes(call), keepdims=bool(call.option("keep_dims")))


def _place(call: Call, *, largest: bool) -> np.ndarray:
    """ARG_MAX and ARG_MIN: the first of equals."""
    values = call.value(0)
    axis = call.axis(call.integers(1)[0], values.ndim)
    found = values.argmax(axis) if largest else values.argmin(axis)
    return found.astype(call.output.dtype)


def l2_normalization(call: Call) -> np.ndarray:
    """L2_NORMALIZATION over the last axis."""
    if call.output.dtype not in BYTES:
        raise KernelError(f"L2_NORMALIZATION of {call.output.dtype}")
    values = call.centred(0).astype(np.int64)
    roots, exponents = fixed.inverse_root((values * values).sum(axis=-1, keepdims=True))
    if call.output.dtype == "uint8":
        results = multiplied(values << L2_BITS, roots, exponents) + 128
    else:
        results = multiplied(values, roots, exponents + L2_BITS)
    info = np.iinfo(call.output.dtype)
    return np.clip(results, info.min, info.max).astype(call.output.dtype)


REDUCE: dict[str, Callable[[Call], np.ndarray]] = {
    "MEAN": partial(_sum, mean=True),
    "SUM": partial(_sum, mean=False),
    "REDUCE_MAX": partial(_extreme, largest=True),
    "REDUCE_MIN": partial(_extreme, largest=False),
    "ARG_MAX": partial(_place, largest=True),
    "ARG_MIN": partial(_place, largest=False),
    "L2_NORMALIZATION": l2_normalization,
}
