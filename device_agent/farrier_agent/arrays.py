"""Sets of arrays: read from .npz files of unknown origin, checked against a manifest, compared with tolerances."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Dict, Iterable, Mapping, Sequence

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import NUMPY_NAMES, TensorSpec

NPZ_MAX_BYTES = 1 << 30  # of all arrays of one file, unpacked

_DTYPES = {datatype: np.dtype(name) for datatype, name in NUMPY_NAMES.items()}


def read_npz(path: Path, *, max_bytes: int = NPZ_MAX_BYTES) -> Dict[str, np.ndarray]:
    """Return the arrays of an .npz file; raises InputError where it is no such file, holds objects or is too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            raise InputError(f"{path} unpacks to {size} bytes, above the limit of {max_bytes}")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is not an .npz file of plain arrays ({error})") from None


def checked(
    inputs: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], *, has_rows: bool
) -> Dict[str, np.ndarray]:
    """Return the inputs in the manifest's order, C-contiguous; raises InputError where one does not fit.

    With `has_rows`, axis 0 must be equally long in all of them.
    """
    fitting: Dict[str, np.ndarray] = {}
    for spec in specs:
        try:
            array = inputs[spec.name]
        except KeyError:
            raise InputError(f"input {spec.name!r} is missing: {_wanted(specs)}") from None
        if array.dtype != _DTYPES.get(spec.datatype):
            raise InputError(f"input {spec.name!r} has dtype {array.dtype}: {_wanted([spec])}")
        if not spec.accepts(array.shape):
            raise InputError(f"input {spec.name!r} has shape {list(array.shape)}: {_wanted([spec])}")
        fitting[spec.name] = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    if len(inputs) != len(specs):
        foreign = sorted(set(inputs) - set(fitting))[0]
        raise InputError(f"input {foreign!r} is unknown: {_wanted(specs)}")
    if has_rows and len({len(array) for array in fitting.values()}) > 1:
        raise InputError(f"the inputs have different numbers of rows: {_wanted(specs)}")
    return fitting


def _wanted(specs: Iterable[TensorSpec]) -> str:
    inputs = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in specs)
    return f"the model takes {inputs}"


def worst_excess(got: np.ndarray, want: np.ndarray, *, atol: float, rtol: float) -> float:
    """Return how far the worst element lies outside `|got - want| <= atol + rtol * |want|`; 0 where all lie inside.

    Two NaNs are equal, as are two infinities of one sign. Arrays of different shapes are infinitely far apart.
    """
    if got.shape != want.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    with np.errstate(invalid="ignore"):
        excess = np.abs(got - want) - (atol + rtol * np.abs(want))
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    excess = np.where(same, 0.0, np.where(np.isnan(excess), np.inf, excess))
    return max(0.0, float(excess.max()))
