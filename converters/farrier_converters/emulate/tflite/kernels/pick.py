"""Operators that take parts of a tensor, whatever its numbers stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..call import Call, KernelError


def split(call: Call) -> list[np.ndarray]:
    """SPLIT into equal parts."""
    values, count = call.value(1), len(call.outputs)
    axis = call.axis(call.integers(0)[0], values.ndim)
    if values.shape[axis] % count:
        raise KernelError(f"{values.shape[axis]} cannot be split into {count} equal parts")
    return np.split(values, count, axis)


def split_v(call: Call) -> list[np.ndarray]:
    """SPLIT_V; one of the sizes may be -1."""
    values, sizes = call.value(0), call.integers(1)
    axis = call.axis(call.integers(2)[0], values.ndim)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = values.shape[axis] - sum(size for size in sizes if size != -1)
    if min(sizes, default=-1) < 0 or sum(sizes) != values.shape[axis] or len(sizes) != len(call.outputs):
        raise KernelError(f"{values.shape[axis]} cannot be split into {sizes}")
    return np.split(values, np.cumsum(sizes)[:-1], axis)


def unpack(call: Call) -> list[np.ndarray]:
    """UNPACK."""
    values = call.value(0)
    axis = call.axis(call.option("axis"), values.ndim)
    if values.shape[axis] != len(call.outputs):
        raise KernelError(f"{values.shape[axis]} parts for {len(call.outputs)} outputs")
    return list(np.moveaxis(values, axis, 0))


def slice_(call: Call) -> np.ndarray:
    """SLICE; a size of -1 is what is left."""
    values = call.value(0)
    bounds = zip(values.shape, call.integers(1), call.integers(2), strict=True)
    cuts = []
    for size, begin, count in bounds:
        end = size if count == -1 else begin + count
        if not 0 <= begin <= end <= size:
            raise KernelError("it reaches outside of the tensor")
        cuts.append(slice(begin, end))
    return values[tuple(cuts)]


def strided_slice(call: Call) -> np.ndarray:
    """STRIDED_SLICE with all its masks."""
    masks = {
        name: call.option(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    begin, end, step = (call.integers(i) for i in (1, 2, 3))
    if not len(begin) == len(end) == len(step) or 0 in step:
        raise KernelError("its bounds do not fit together")
    key: list[slice | int | None] = []
    ellipsis = -1
    for axis, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        if masks["ellipsis"] >> axis & 1:
            ellipsis = len(key)
        elif masks["new_axis"] >> axis & 1:
            key.append(None)
        elif masks["shrink_axis"] >> axis & 1:
            key.append(first)
        else:
            low = None if masks["begin"] >> axis & 1 else first
            high = None if masks["end"] >> axis & 1 else first + last if call.option("offset") else last
            key.append(slice(low, high, stride))
    if ellipsis >= 0:
        return call.value(0)[(*key[:ellipsis], ..., *key[ellipsis:])]
    return call.value(0)[tuple(key)]


def gather(call: Call) -> np.ndarray:
    """GATHER along an axis, row by row where `batch_dims` says so."""
    values, places = call.value(0), call.value(1)
    axis, rows = call.axis(call.option("axis"), values.ndim), call.option("batch_dims")
    rows = rows + places.ndim if rows < 0 else rows
    size = values.shape[axis]
    if ((places < 0) | (places >= size)).any() or not 0 <= rows <= min(axis, places.ndim):
        raise KernelError("it reaches outside of the tensor")
    if not rows:
        return np.take(values, places, axis)
    if values.shape[:rows] != places.shape[:rows]:
        raise KernelError("its rows do not fit together")
    return _gather_rows(values, places, axis - rows, values.shape[:rows])


def _gather_rows(values: np.ndarray, places: np.ndarray, axis: int, rows: Sequence[int]) -> np.ndarray:
    flat_values = values.reshape(-1, *values.shape[len(rows) :])
    flat_places = places.reshape(-1, *places.shape[len(rows) :])
    parts = [np.take(v, p, axis) for v, p in zip(flat_values, flat_places, strict=True)]
    return np.stack(parts).reshape(*rows, *parts[0].shape)


def reverse_v2(call: Call) -> np.ndarray:
    """REVERSE_V2."""
    values = call.value(0)
    return np.flip(values, tuple(call.axis(axis, values.ndim) for axis in call.integers(1)))


PICK: dict[str, Callable[[Call], np.ndarray | list[np.ndarray]]] = {
    "SPLIT": split,
    "SPLIT_V": split_v,
    "UNPACK": unpack,
    "SLICE": slice_,
    "STRIDED_SLICE": strided_slice,
    "GATHER": gather,
    "REVERSE_V2": reverse_v2,
}
