"""The rows of a distillation: to learn from, to choose the best epoch by, to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import TensorSpec
from farrier_converters import data as datasets
from farrier_converters.data import Dataset

VALIDATION = 0.1  # of the training rows, to choose the best epoch by
EVALUATION = 0.2  # of them, to be judged on where no rows are given for that
LEAST = 20  # rows, to be divided at all
MOST_VALIDATION = 2000  # rows

Batch = tuple[dict[str, np.ndarray], "np.ndarray | None"]


@dataclass(frozen=True)
class Stream:
    """Training batches over a data set: shuffled by seed and epoch; a last batch of fewer rows is left out."""

    data: Dataset
    batch: int
    seed: int
    repeats: bool = True  # the same rows come back in each epoch, unchanged

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said before training."""
        count = len(self.data)
        if count >= self.batch:
            return ()
        return (f"there are {count} rows, fewer than a batch of {self.batch}: all of them are one batch",)

    def __len__(self) -> int:
        return max(len(self.data) // self.batch, 1)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.data.rows)
        for number in range(len(self)):
            yield self._take(order[number * self.batch : (number + 1) * self.batch])

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows once, in their order."""
        rows = self.data.rows
        for start in range(0, len(rows), self.batch):
            yield self._take(rows[start : start + self.batch])

    def _take(self, rows: np.ndarray) -> Batch:
        labels = self.data.labels
        return self.data.feed(rows), None if labels is None else np.asarray(labels[rows])


@dataclass(frozen=True)
class Shares:
    """The three parts of the rows, and what is to be said of them."""

    training: Dataset
    validation: Dataset
    evaluation: Dataset
    notes: tuple[str, ...] = ()


def read(
    train: Path, evaluation: Path | None, inputs: Sequence[TensorSpec], *, unlabelled: bool, seed: int
) -> Shares:
    """Read and divide the rows, by seed; raises InputError in one sentence.

    The rows that choose an epoch are never those that judge, unless there are too few to divide.
    """
    found = datasets.load(train, inputs)
    if found.stacked:
        raise InputError(f"the model takes the rows of {train} one by one; training needs a free first axis")
    judges = None if evaluation is None else datasets.load(evaluation, inputs)
    notes = [*found.notes, *(() if judges is None else judges.notes)]
    learned = replace(found, labels=None) if unlabelled else found
    if len(found) < LEAST:
        notes.append(f"{len(found)} rows are too few to divide: the same ones train, choose and judge")
        return Shares(learned, learned, judges or found, tuple(dict.fromkeys(notes)))
    order = np.random.default_rng(seed).permutation(found.rows)
    cut = 0
    if judges is None:
        cut = max(1, round(EVALUATION * len(order)))
        judges = found.take(np.sort(order[:cut]))
        notes.append(f"{cut} of the training rows judge, since no other rows were given for that")
    stop = cut + min(max(1, round(VALIDATION * len(order))), MOST_VALIDATION)
    return Shares(
        learned.take(np.sort(order[stop:])),
        learned.take(np.sort(order[cut:stop])),
        judges,
        tuple(dict.fromkeys(notes)),
    )
