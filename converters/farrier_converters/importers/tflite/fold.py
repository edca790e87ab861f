"""What depends on constants alone is computed while importing: shapes above all, and float16 weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...tflite import layout

MAX_FOLDED_ELEMENTS = 1 << 24

Fold = Callable[[list[np.ndarray], dict[str, Any]], np.ndarray | None]


def fold(name: str, inputs: list[np.ndarray], options: dict[str, Any], dtype: str) -> np.ndarray | None:
    """Return an operator's value, or None where it is not one of these. Integers stay int64 inside."""
    function = FOLDS.get(name)
    if function is None:
        return None
    wide = [a.astype(np.int64) if a.dtype.kind in "iu" and name != "DEQUANTIZE" else a for a in inputs]
    found = function(wide, options)
    if found is None:
        return None
    result = np.asarray(found)
    if result.size > MAX_FOLDED_ELEMENTS:
        raise ValueError(f"a constant of {result.size} elements")
    return result if result.dtype.kind in "iu" else result.astype(dtype, copy=False)


def _strided_slice(a: list[np.ndarray], o: dict[str, Any]) -> np.ndarray:
    x, begin, end, step = a[0], *(v.ravel().tolist() for v in a[1:4])
    if o["ellipsis_mask"] or o["new_axis_mask"] or o["offset"]:
        raise ValueError("a mask for an ellipsis, a new axis or an offset")
    key: list[int | slice] = []
    for axis, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        if o["shrink_axis_mask"] >> axis & 1:
            key.append(first)
        else:
            low = None if o["begin_mask"] >> axis & 1 else first
            high = None if o["end_mask"] >> axis & 1 else last
            key.append(slice(low, high, stride))
    return x[tuple(key)]


def _fill(a: list[np.ndarray], _o: dict[str, Any]) -> np.ndarray | None:
    shape = a[0].ravel().tolist()
    if any(layout.free(s) for s in shape):
        return None
    if np.prod(shape, dtype=object) > MAX_FOLDED_ELEMENTS:
        raise ValueError(f"a constant of shape {shape}")
    return np.full(shape, a[1].ravel()[0])


def _range(a: list[np.ndarray], _o: dict[str, Any]) -> np.ndarray:
    start, stop, step = (v.ravel()[0] for v in a)
    if abs((stop - start) / step) > MAX_FOLDED_ELEMENTS:
        raise ValueError("a constant range that is too long")
    return np.arange(start, stop, step)


def _reduce_prod(a: list[np.ndarray], o: dict[str, Any]) -> np.ndarray:
    return np.prod(a[0], axis=tuple(a[1].ravel().tolist()), keepdims=bool(o["keep_dims"]))


def _squeeze(a: list[np.ndarray], o: dict[str, Any]) -> np.ndarray:
    return np.squeeze(a[0], tuple(o["axes"]) or None)


def _reshape(a: list[np.ndarray], o: dict[str, Any]) -> np.ndarray:
    return a[0].reshape(a[1].ravel().tolist() if len(a) > 1 else o["shape"])


def _slice(a: list[np.ndarray], _o: dict[str, Any]) -> np.ndarray:
    begin, sizes = a[1].ravel().tolist(), a[2].ravel().tolist()
    return a[0][tuple(slice(f, None if n == -1 else f + n) for f, n in zip(begin, sizes, strict=True))]


FOLDS: dict[str, Fold] = {
    "ADD": lambda a, _: a[0] + a[1],
    "SUB": lambda a, _: a[0] - a[1],
    "MUL": lambda a, _: a[0] * a[1],
    "FLOOR_DIV": lambda a, _: a[0] // a[1],
    "FLOOR_MOD": lambda a, _: a[0] % a[1],
    "MAXIMUM": lambda a, _: np.maximum(a[0], a[1]),
    "MINIMUM": lambda a, _: np.minimum(a[0], a[1]),
    "CAST": lambda a, _: a[0],
    "PACK": lambda a, o: np.stack(a, o["axis"]),
    "CONCATENATION": lambda a, o: np.concatenate(a, o["axis"]),
    "GATHER": lambda a, o: np.take(a[0], a[1], axis=o["axis"]),
    "EXPAND_DIMS": lambda a, _: np.expand_dims(a[0], int(a[1].ravel()[0])),
    "TRANSPOSE": lambda a, _: a[0].transpose(a[1].ravel().tolist()),
    "REDUCE_PROD": _reduce_prod,
    "RESHAPE": _reshape,
    "SLICE": _slice,
    "SQUEEZE": _squeeze,
    "STRIDED_SLICE": _strided_slice,
    "FILL": _fill,
    "RANGE": _range,
    "ZEROS_LIKE": lambda a, _: np.zeros_like(a[0]),
}
