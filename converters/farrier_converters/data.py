"""Evaluation and calibration data: rows under the model's input names, checked, split, cut into batches."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES, TensorSpec

from . import npz

RANDOM = "random"  # the source of made-up rows
CHECKED_ELEMENTS = 1 << 18  # looked at together for NaN, at most
LABEL_NAMES = ("labels", "target")
SAFE_CASTS = {  # what is stored -> what the model may want instead, without losing a value
    "uint8": ("float32", "float64", "int16", "int32", "int64"),
    "int8": ("float32", "float64", "int16", "int32", "int64"),
    "float16": ("float32", "float64"),
    "float64": ("float32",),  # numpy's default: rounding to the model's own precision is what is meant
    "int32": ("int64",),
    "int64": ("int32",),  # checked: every value must fit
}


@dataclass(frozen=True)
class DataSettings:
    """How data is split and made."""

    seed: int = 0
    calibration_rows: int = 512  # at most, from a seeded split or from --calib
    calibration_share: float = 0.2  # of the rows where --calib is not given
    split_from_rows: int = 20  # with fewer rows the same ones calibrate and evaluate
    random_rows: int = 64  # made where no data is given
    random_elements: int = 1 << 21  # of them all: fewer rows of larger inputs
    least_random_rows: int = 16
    random_limit: int = 1 << 28  # elements of one input that is made up
    random_dimension: int = 16  # for a free dimension that is not the batch
    random_image_side: int = 224  # for free spatial dimensions of a 4-D input
    check_rows: int = 256  # rows looked at together for NaN


@dataclass(frozen=True)
class Dataset:
    """Rows of named inputs, in the dtypes the model wants.

    `constant` inputs have no row axis (a sample rate, say) and go to every run unchanged; `stacked` ones hold
    a complete input per row, batch axis included, so that rows run one by one. `rows` index the arrays.
    """

    inputs: tuple[TensorSpec, ...]
    arrays: Mapping[str, np.ndarray]
    rows: np.ndarray
    labels: np.ndarray | None = None
    constant: frozenset[str] = frozenset()
    stacked: frozenset[str] = frozenset()
    source: str = RANDOM
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def fixed_batch(self) -> int | None:
        """How many rows every run takes; None where that is free."""
        sizes = {s.shape[0] for s in self.inputs if s.name not in self.constant | self.stacked}
        ties = any(DYNAMIC in s.shape for s in self.inputs if s.name in self.constant)
        if self.stacked or ties or not sizes:
            return 1
        fixed = sizes - {DYNAMIC}
        return max(fixed) if fixed else None

    def take(self, rows: np.ndarray) -> Dataset:
        """Return the same data restricted to these rows of the arrays."""
        return replace(self, rows=rows)

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return what one run takes for these rows (indices into the arrays)."""
        feeds = {}
        for spec in self.inputs:
            array, dtype = self.arrays[spec.name], np.dtype(NUMPY_NAMES[spec.datatype])
            if spec.name in self.constant:
                value = array
            elif spec.name in self.stacked:
                value = array[rows[0]]
            else:
                value = array[rows]
            feeds[spec.name] = np.asarray(value, dtype=dtype)
        return feeds

    def batches(self, size: int) -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        """Yield (inputs, row indices) of `size` rows each; a short last one is padded with its last row.

        The row indices are never padded: only the first `len(rows)` results of a run count.
        """
        for start in range(0, len(self.rows), size):
            rows = self.rows[start : start + size]
            short = size - len(rows)
            padded = (
                np.concatenate([rows, np.repeat(rows[-1:], short)]) if short and self.fixed_batch else rows
            )
            yield self.feed(padded), rows
            for array in self.arrays.values():
                npz.release(array)


@dataclass(frozen=True)
class Split:
    """The rows to calibrate with and the rows to evaluate on."""

    calibration: Dataset
    evaluation: Dataset
    notes: tuple[str, ...] = field(default=())


def load(path: Path, inputs: Sequence[TensorSpec], *, settings: DataSettings = DataSettings()) -> Dataset:
    """Read and check the rows for these inputs; raises InputError in one sentence."""
    return from_arrays(npz.read(path), inputs, source=path, settings=settings)


def from_arrays(
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[TensorSpec],
    *,
    source: Path,
    settings: DataSettings = DataSettings(),
) -> Dataset:
    """Check arrays that came from `source` against these inputs; raises InputError in one sentence."""
    _check_names(source, inputs, arrays)
    kinds = {spec.name: _kind(source, spec, arrays[spec.name]) for spec in inputs}
    if "constant" in kinds.values() and not {"rows", "stacked"} & set(kinds.values()):
        kinds = {spec.name: "rows" if spec.shape else "constant" for spec in inputs}  # one full fixed batch
    counted = {name: arrays[name] for name, kind in kinds.items() if kind != "constant"}
    label_name = next((n for n in LABEL_NAMES if n in arrays and n not in kinds), None)
    if label_name is not None:
        counted[label_name] = arrays[label_name]
    rows = _row_count(source, counted)
    notes = [note for spec in inputs for note in _check_dtype(source, spec, arrays[spec.name])]
    for name, array in counted.items():
        _check_finite(source, name, array, step=settings.check_rows)
    return Dataset(
        inputs=tuple(inputs),
        arrays={spec.name: arrays[spec.name] for spec in inputs},
        rows=np.arange(rows),
        labels=arrays[label_name] if label_name is not None else None,
        constant=frozenset(name for name, kind in kinds.items() if kind == "constant"),
        stacked=frozenset(name for name, kind in kinds.items() if kind == "stacked"),
        source=source.name,
        notes=tuple(notes),
    )


def split(data: Dataset, calibration: Dataset | None, settings: DataSettings = DataSettings()) -> Split:
    """Divide the rows by seed; rows that calibrate are not used for evaluation unless there are too few."""
    rng = np.random.default_rng(settings.seed)
    if calibration is not None:
        rows = rng.permutation(calibration.rows)[: settings.calibration_rows]
        return Split(calibration.take(np.sort(rows)), data)
    if len(data) < settings.split_from_rows:
        note = f"{len(data)} rows are too few to split: the same rows calibrate and evaluate"
        return Split(data, data, (note,))
    order = rng.permutation(data.rows)
    count = min(settings.calibration_rows, max(1, round(len(data) * settings.calibration_share)))
    return Split(data.take(np.sort(order[:count])), data.take(np.sort(order[count:])))


def random(inputs: Sequence[TensorSpec], settings: DataSettings = DataSettings()) -> Dataset:
    """Make seeded inputs in plausible ranges: standard normal for floats, 0 or 1 for all else."""
    rng = np.random.default_rng(settings.seed)
    counted = {s.name for s in inputs if s.shape and s.shape[0] in (DYNAMIC, 1)}
    counted = counted or {s.name for s in inputs if s.shape}  # a fixed batch of several rows
    count = _random_rows([spec for spec in inputs if spec.name in counted], settings)
    arrays: dict[str, np.ndarray] = {}
    for spec in inputs:
        if spec.datatype not in NUMPY_NAMES:
            raise InputError(
                f"input {spec.name!r} holds {spec.datatype}, which cannot be made up: give --data"
            )
        dtype = np.dtype(NUMPY_NAMES[spec.datatype])
        shape = _random_shape(spec, settings)
        if spec.name in counted:
            shape = (count, *shape[1:])
        if max(math.prod(shape), math.prod(s for s in spec.shape if s > 0)) > settings.random_limit:
            raise InputError(
                f"input {spec.name!r} of shape {list(spec.shape)} is too large to make up: give --data"
            )
        is_float = np.issubdtype(dtype, np.floating)
        values = rng.standard_normal(shape) if is_float else rng.integers(0, 2, shape)
        arrays[spec.name] = np.asarray(values).astype(dtype)
    rows = np.arange(count if counted else 1)
    return Dataset(tuple(inputs), arrays, rows, constant=frozenset(arrays) - counted)


def _random_rows(inputs: Sequence[TensorSpec], settings: DataSettings) -> int:
    elements = sum(int(np.prod(_random_shape(spec, settings)[1:])) for spec in inputs)
    rows = settings.random_elements // max(elements, 1)
    return int(np.clip(rows, min(settings.least_random_rows, settings.random_rows), settings.random_rows))


def _random_shape(spec: TensorSpec, settings: DataSettings) -> tuple[int, ...]:
    def size(axis: int) -> int:
        if axis == 0:
            return 1
        image = len(spec.shape) == 4 and axis >= 2
        return settings.random_image_side if image else settings.random_dimension

    return tuple(size(axis) if d == DYNAMIC else d for axis, d in enumerate(spec.shape))


def _check_names(path: Path, inputs: Sequence[TensorSpec], arrays: Mapping[str, np.ndarray]) -> None:
    missing = [spec.name for spec in inputs if spec.name not in arrays]
    if missing:
        wanted, found = ", ".join(s.name for s in inputs), ", ".join(sorted(arrays)) or "none"
        raise InputError(
            f"{path} does not fit the model: it wants arrays named {wanted}, the file holds {found};"
            " rename them"
        )


def _kind(path: Path, spec: TensorSpec, array: np.ndarray) -> str:
    shape = array.shape
    if spec.shape and spec.shape[0] in (DYNAMIC, 1) and len(shape) == len(spec.shape):
        if spec.accepts((spec.shape[0], *shape[1:])) or spec.accepts(shape):
            return "rows"
    elif spec.accepts(shape):
        return "constant"
    elif shape and spec.shape and spec.accepts((spec.shape[0], *shape[1:])) and shape[0] % spec.shape[0] == 0:
        return "rows"
    if spec.accepts(shape[1:]) and len(shape) == len(spec.shape) + 1:
        return "stacked"
    wanted = "(" + ", ".join("any" if d == DYNAMIC else str(d) for d in spec.shape) + ")"
    raise InputError(
        f"array {spec.name!r} of {path} has shape {shape}, the model wants {wanted} with any number of rows"
    )


def _row_count(path: Path, arrays: Mapping[str, np.ndarray]) -> int:
    single = next((name for name, array in arrays.items() if array.ndim == 0), None)
    if single is not None:
        raise InputError(f"array {single!r} of {path} is a single value; give one per row")
    counts = {name: len(array) for name, array in arrays.items()}
    if not counts:
        return 1
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise InputError(f"the arrays of {path} differ in their number of rows ({listed}); they must agree")
    rows = next(iter(counts.values()))
    if rows == 0:
        raise InputError(f"{path} holds no rows")
    return rows


def _check_dtype(path: Path, spec: TensorSpec, array: np.ndarray) -> list[str]:
    wanted, found = NUMPY_NAMES.get(spec.datatype, spec.datatype), array.dtype.name
    if found == wanted:
        return []
    if wanted not in SAFE_CASTS.get(found, ()):
        raise InputError(f"array {spec.name!r} of {path} is {found}, the model wants {wanted}; convert it")
    if found == "int64" and array.size:
        limits = np.iinfo(wanted)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"array {spec.name!r} of {path} holds values that {wanted} cannot; convert it")
    return [f"input {spec.name!r} is read from {found} as {wanted}"]


def _check_finite(path: Path, name: str, array: np.ndarray, *, step: int) -> None:
    if not np.issubdtype(array.dtype, np.floating):
        return
    step = max(1, min(step, CHECKED_ELEMENTS * len(array) // max(array.size, 1)))
    for start in range(0, len(array), step):
        npz.release(array)
        rows = np.asarray(array[start : start + step])
        wrong = ~np.isfinite(rows.reshape(len(rows), -1)).all(axis=1)
        if wrong.any():
            row = start + int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"row {row} of array {name!r} in {path} holds NaN or infinity; remove or repair it"
            )
        npz.release(array)
