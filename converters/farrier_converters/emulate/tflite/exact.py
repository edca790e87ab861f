"""One operator in exact arithmetic: what its integers stand for, computed in doubles, and rounded once, half to even.

Every kernel that is right lies within one quantum of this; a wrong pad, scale or layout shows as more at one operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from ...tflite.file import Operator, TfliteFile
from .call import BYTES, Call, quantum, scale_of, zero_point
from .kernels.linear import LINEAR
from .run import call_of, compute
from .window import image_sides, padded, window, windows

Real = Callable[[Call], np.ndarray]  # the result as a real number


def exact(
    file: TfliteFile, operator: Operator, values: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, ...]:
    """Return what one operator would answer without an error of its own, one array for each output.

    `values` are its inputs, as `compute` takes them. What only moves numbers, whatever is not 8-bit integers, and an
    LSTM (rounded at every step, so that none of its results is of one rounding) is what `compute` returns. Raises
    InputError as it does.
    """
    found = compute(file, operator, values)
    call = call_of(file, operator, values)
    real = REAL.get(operator.name)
    if real is None or call.output.dtype not in BYTES:
        return found
    quanta = np.rint(real(call) / float(scale_of(call.output))) + zero_point(call.output)
    low, high = call.activation_range(
        ACTIVATIONS.get(operator.name, int(operator.options.get("activation", 0)))
    )
    return (np.clip(quanta, low, high).astype(call.output.dtype),)


ACTIVATIONS = {"RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3}  # as fused activations


def _input(call: Call, position: int = 0) -> np.ndarray:
    """Return an input as doubles."""
    if call.given(position).dtype == "float32":
        return call.value(position).astype(np.float64)
    scale, zero = quantum(call.given(position))
    return (call.value(position).astype(np.float64) - zero) * scale


def _linear(call: Call) -> np.ndarray:
    operator = LINEAR[call.operator.name]
    return operator.total(call) * operator.real(call) * float(scale_of(call.output))


def _binary(call: Call, *, function: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    return function(_input(call), _input(call, 1))


def _unary(call: Call, *, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return function(_input(call))


def _leaky_relu(call: Call) -> np.ndarray:
    x = _input(call)
    return np.where(x < 0, x * float(np.float32(call.operator.options["alpha"])), x)


def _prelu(call: Call) -> np.ndarray:
    x = _input(call)
    return np.where(x < 0, x * _input(call, 1), x)


def _softmax(call: Call) -> np.ndarray:
    x = _input(call) * float(np.float32(call.operator.options["beta"]))
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _log_softmax(call: Call) -> np.ndarray:
    x = _input(call)
    below = x - x.max(axis=-1, keepdims=True)
    return below - np.log(np.exp(below).sum(axis=-1, keepdims=True))


def _average_pool(call: Call) -> np.ndarray:
    how = window(
        call, image_sides(call, 0), (call.option("filter_h"), call.option("filter_w")), dilated=False
    )
    x = _input(call)
    inside = windows(padded(np.ones((1, *x.shape[1:3], 1)), how), how).sum(axis=(3, 4))
    return windows(padded(x, how), how).sum(axis=(3, 4)) / inside


def _reduced(call: Call, *, function: Callable[..., np.ndarray]) -> np.ndarray:
    x = _input(call)
    axes = tuple({axis % x.ndim for axis in call.integers(1)})
    return np.asarray(function(x, axis=axes, keepdims=bool(call.option("keep_dims"))))


def _l2(call: Call) -> np.ndarray:
    x = _input(call)
    norm = np.sqrt((x * x).sum(axis=-1, keepdims=True))
    return x / np.where(norm > 0, norm, 1)


def _resize_bilinear(call: Call) -> np.ndarray:
    x, sizes = _input(call), call.integers(1)
    for axis, wanted in zip((1, 2), sizes, strict=True):
        first, second, share = _places(call, x.shape[axis], wanted)
        share = share.reshape((-1, 1) if axis == 2 else (-1, 1, 1))
        x = np.take(x, first, axis) * (1 - share) + np.take(x, second, axis) * share
    return x


def _places(call: Call, size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    corners = call.option("align_corners") and wanted > 1
    scale = (size - 1) / (wanted - 1) if corners else size / wanted
    half = 0.5 if call.option("half_pixel") else 0.0
    places = np.clip((np.arange(wanted) + half) * scale - half, 0, size - 1)
    first = np.floor(places).astype(np.int64)
    return first, np.minimum(first + 1, size - 1), places - first


def _gelu(call: Call) -> np.ndarray:
    x = _input(call)
    if call.option("approximate"):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * np.vectorize(math.erfc)(-x * math.sqrt(0.5))


REAL: dict[str, Real] = {
    **dict.fromkeys(LINEAR, _linear),
    "ADD": partial(_binary, function=np.add),
    "SUB": partial(_binary, function=np.subtract),
    "MUL": partial(_binary, function=np.multiply),
    "SQUARED_DIFFERENCE": partial(_binary, function=lambda a, b: (a - b) ** 2),
    **dict.fromkeys((*ACTIVATIONS, "QUANTIZE"), _input),
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
    "HARD_SWISH": partial(_unary, function=lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "LOGISTIC": partial(_unary, function=lambda x: 1 / (1 + np.exp(-x))),
    "TANH": partial(_unary, function=np.tanh),
    "EXP": partial(_unary, function=np.exp),
    "LOG": partial(_unary, function=np.log),
    "ELU": partial(_unary, function=lambda x: np.where(x < 0, np.expm1(x), x)),
    "ABS": partial(_unary, function=np.abs),
    "RSQRT": partial(_unary, function=lambda x: 1 / np.sqrt(x)),
    "GELU": _gelu,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": _log_softmax,
    "AVERAGE_POOL_2D": _average_pool,
    "MEAN": partial(_reduced, function=np.mean),
    "SUM": partial(_reduced, function=np.sum),
    "L2_NORMALIZATION": _l2,
    "RESIZE_BILINEAR": _resize_bilinear,
}
