"""A data set through an engine process into a metric, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from farrier_contracts.errors import InputError

from ..data import Dataset
from ..metrics import Metric
from .child import Child, EngineFailure

EVALUATION_BATCH = 32  # rows per run where the model leaves that free


class Answers(Protocol):
    """What runs a batch: an engine's process, or a host's emulation."""

    def run(self, feeds: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        """Return the outputs by name."""
        ...


class Reference:
    """The float model's outputs, one file per batch in a folder of the caller's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.batches = 0

    def add(self, outputs: Sequence[np.ndarray]) -> None:
        """Keep one batch's outputs."""
        np.savez(self._folder / f"{self.batches}.npz", *outputs)  # type: ignore[arg-type]
        self.batches += 1

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        for batch in range(self.batches):
            with np.load(self._folder / f"{batch}.npz", allow_pickle=False) as arrays:
                yield [arrays[name] for name in arrays.files]


def evaluate(
    child: Answers,
    data: Dataset,
    metric: Metric,
    *,
    batch: int,
    reference: Reference | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> float:
    """Return the metric over all rows; raises EngineFailure, and InputError where labels do not fit."""
    meter = metric.start()
    wanted = iter(reference) if reference is not None and not metric.needs_labels else None
    done = 0
    for outputs, rows in outputs_of(child, data, batch=batch):
        meter.add(outputs, next(wanted) if wanted is not None else _labels(data, rows, metric))
        done += len(rows)
        progress(done / len(data))
    value = meter.value()
    if not np.isfinite(value):
        raise EngineFailure(f"its {metric.name} is not a finite number")
    return value


def record(child: Answers, data: Dataset, folder: Path, *, batch: int) -> Reference:
    """Run every row once and keep the outputs in `folder`; raises EngineFailure."""
    reference = Reference(folder)
    for outputs, _ in outputs_of(child, data, batch=batch):
        reference.add(outputs)
    return reference


def outputs_of(child: Answers, data: Dataset, *, batch: int) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
    """Yield each batch's outputs, one row per data row, with the row indices; raises EngineFailure."""
    for feeds, rows in data.batches(batch):
        outputs = child.run(feeds)
        yield [_per_row(name, array, len(rows), batch) for name, array in outputs.items()], rows


def evaluation_batch(child: Child, data: Dataset) -> int:
    """Return how many rows to run at once: what the model fixes, else many if the model really takes many."""
    if data.fixed_batch is not None:
        return data.fixed_batch
    size = min(EVALUATION_BATCH, len(data))
    if size > 1 and takes_batch(child, data, size):
        return size
    return 1


def takes_batch(child: Child, data: Dataset, size: int) -> bool:
    """Say whether a run of `size` rows works and gives one result per row."""
    rows = np.resize(data.rows, size)
    try:
        outputs = child.run(data.feed(rows))
    except EngineFailure:
        return False
    return all(array.ndim > 0 and array.shape[0] == size for array in outputs.values())


def _per_row(name: str, array: np.ndarray, rows: int, batch: int) -> np.ndarray:
    if array.ndim and array.shape[0] == rows:
        return array
    if batch == 1:
        return array[None]
    if array.ndim and array.shape[0] == batch:
        return array[:rows]
    raise EngineFailure(f"its output {name!r} of shape {array.shape} does not hold one result per row")


def _labels(data: Dataset, rows: np.ndarray, metric: Metric) -> list[np.ndarray]:
    if data.labels is None:
        raise InputError(f"the metric {metric.name} needs an array 'labels' (or 'target') in the data")
    return [np.asarray(data.labels[rows])]
