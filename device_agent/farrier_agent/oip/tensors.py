"""One tensor to and from the protocol's two forms: JSON lists, and little-endian row-major bytes. Pure functions."""

from __future__ import annotations

import math
import sys
from typing import Any, List, Sequence, Tuple

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import DATATYPES, NUMPY_NAMES

from .http import Chunk, UnsupportedError

MAX_RANK = 32
MAX_ELEMENTS = 1 << 32

_DTYPES = {datatype: np.dtype(name).newbyteorder("<") for datatype, name in NUMPY_NAMES.items()}
_DATATYPES = {np.dtype(name): datatype for datatype, name in NUMPY_NAMES.items()}


def dtype_of(name: str, datatype: Any) -> np.dtype:
    """Return the dtype of a protocol datatype; raises InputError."""
    if datatype == "BYTES":
        raise UnsupportedError(f"input {name!r}: BYTES tensors are not supported here: send numbers")
    dtype = _DTYPES.get(datatype) if isinstance(datatype, str) else None
    if dtype is None:
        raise InputError(f"input {name!r} has an unknown datatype {datatype!r:.40}")
    return dtype


def shape_of(name: str, shape: Any) -> Tuple[int, ...]:
    """Return a checked shape; raises InputError."""
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_RANK
        or not all(type(d) is int and d >= 0 for d in shape)
    ):
        raise InputError(f"input {name!r} has a wrong shape {shape!r:.80}")
    if math.prod(shape) > MAX_ELEMENTS:
        raise InputError(f"input {name!r} has more than {MAX_ELEMENTS} elements")
    return tuple(shape)


def from_bytes(name: str, data: Chunk, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Return the array in `data`, without a copy where it lies on its dtype's alignment; raises InputError."""
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InputError(
            f"input {name!r} has {len(data)} bytes of data, its shape and datatype need {expected}"
        )
    if dtype == np.bool_:
        return (np.frombuffer(data, np.uint8) != 0).reshape(shape)
    array = np.frombuffer(data, dtype).reshape(shape)
    return array if array.flags.aligned else array.copy()


def from_json(name: str, data: Any, dtype: np.dtype, shape: Sequence[int]) -> np.ndarray:
    """Return the array in a list, flat or nested; raises InputError where a value does not fit its datatype."""
    if not isinstance(data, list):
        raise InputError(f"input {name!r} has no data: give a list of numbers, or binary data with its size")
    try:
        array = np.array(data, dtype=np.uint64 if dtype == np.uint64 else None)
    except (ValueError, OverflowError, TypeError):
        raise InputError(f"input {name!r} has data that is no regular list of {dtype.name} values") from None
    if array.size != math.prod(shape):
        raise InputError(
            f"input {name!r} has {array.size} values, its shape {list(shape)} needs {math.prod(shape)}"
        )
    if array.ndim > 1 and array.shape != tuple(shape):
        raise InputError(f"input {name!r} is nested as {list(array.shape)} but its shape is {list(shape)}")
    return _cast(name, array, dtype).reshape(shape)


def _cast(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    allowed = {"f": "fiu", "b": "biu"}.get(dtype.kind, "iu")
    if array.size and array.dtype.kind not in allowed:
        raise InputError(f"input {name!r} holds values that are not {DATATYPES[dtype.name]}")
    if dtype.kind in "iu" and array.size:
        limits = np.iinfo(dtype)
        if int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise InputError(f"input {name!r} holds values outside {DATATYPES[dtype.name]}")
    return array.astype(dtype)


def datatype_of(dtype: np.dtype) -> str:
    """Return the protocol's word for one of its dtypes."""
    return _DATATYPES[dtype]


def to_bytes(array: np.ndarray) -> bytes:
    """Return the little-endian row-major bytes."""
    if sys.byteorder == "little":
        return array.tobytes()
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def to_json(name: str, array: np.ndarray) -> List[Any]:
    """Return the flat list; raises InputError where JSON has no word for a value."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"output {name!r} holds NaN or infinity, which JSON cannot say: ask for binary data")
    return array.reshape(-1).tolist()
