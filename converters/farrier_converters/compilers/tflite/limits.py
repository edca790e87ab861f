"""Which shapes a tensor of the file may have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...tflite import layout
from ...tflite.layout import BatchError, Shape
from .errors import Code, UnsupportedError

BESIDE = 64  # how far from a multiple of BATCH a value may lie that was computed from it
MAX_RANK = 8  # of TFLite's own kernels; most take less
MAX_ELEMENTS = 1 << 31  # of any tensor, per row of the batch


def checked(shape: Sequence[int]) -> Shape:
    """Return the shape; raises BatchError where rows would be mixed, UnsupportedError for what no kernel takes."""
    sizes = tuple(int(size) for size in shape)
    if len(sizes) > MAX_RANK:
        raise UnsupportedError(Code.RANK, f"a tensor of {len(sizes)} axes")
    if any(size > layout.BATCH // 2 and not layout.free(size) for size in sizes):
        raise BatchError("a size depends on the number of rows in a way that cannot stay open")
    if sum(map(layout.free, sizes)) > 1:
        raise BatchError("two axes depend on the number of rows")
    if min(sizes, default=1) < 1:
        raise UnsupportedError(Code.SHAPE, f"a tensor of shape {list(sizes)} has no elements")
    if math.prod(s // layout.BATCH if layout.free(s) else s for s in sizes) > MAX_ELEMENTS:
        raise UnsupportedError(Code.SHAPE, f"a tensor of shape {list(sizes)} is too large")
    return sizes


def refuse_rows(array: np.ndarray, *, counts: bool) -> None:
    """Raise BatchError for a constant that hangs on the number of rows: by its shape or, if it `counts`, its values.

    A value that was computed from the number lies at a multiple of it, or beside one.
    """
    if any(map(layout.free, array.shape)):
        raise BatchError("a constant has an entry for each row")
    if not counts or not array.size:
        return
    size = np.abs(np.nan_to_num(array))
    rest = (size + BESIDE) % layout.BATCH
    if ((size >= layout.BATCH - BESIDE) & (rest <= 2 * BESIDE)).any():
        raise BatchError("the number of rows is used as a value")
