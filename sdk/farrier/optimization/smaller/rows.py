"""What a training reads of the user's rows: epochs in a seeded order, and a part held out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from farrier_converters.data import Dataset

from .settings import SmallerSettings

BATCH = 64  # rows per step where the model leaves that free
Batch = tuple[dict[str, np.ndarray], np.ndarray | None]


@dataclass(frozen=True)
class Epochs:
    """Batches with their labels, in the order of each epoch; a short last batch is left out."""

    data: Dataset
    seed: int
    augment: tuple[str, ...] = ()  # see `training.augment.named`

    @property
    def batch(self) -> int:
        """Rows per step."""
        return self.data.fixed_batch or min(BATCH, len(self.data))

    @property
    def repeats(self) -> bool:
        """Whether rows come back unchanged, so that a teacher's answers to them may be kept."""
        return not self.augment

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.data) // self.batch

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.data.rows)
        batches = _batches(self.data, order, self.batch, len(self))
        if not self.augment:
            return batches
        from farrier_converters.training.augment import named

        change = named(self.augment)
        return ((change(inputs, rng), labels) for inputs, labels in batches)


@dataclass(frozen=True)
class HeldOut:
    """The rows that no training sees, in order; where the model fixes its batch, a short last one is left out."""

    data: Dataset

    def __call__(self) -> Iterator[Batch]:
        """Yield all batches with their labels."""
        size = self.data.fixed_batch or min(BATCH, len(self.data))
        count = len(self.data) // size if self.data.fixed_batch else -(-len(self.data) // size)
        return _batches(self.data, self.data.rows, size, count)


def hold_out(data: Dataset, settings: SmallerSettings, seed: int) -> tuple[Dataset, Dataset | None]:
    """Return the rows to train on and those held out, by seed; None where there are too few rows to part with any."""
    if len(data) < settings.least_rows:
        return data, None
    count = min(settings.most_rows, max(1, round(len(data) * settings.share)))
    order = np.random.default_rng((seed, len(data))).permutation(data.rows)
    return data.take(np.sort(order[count:])), data.take(np.sort(order[:count]))


def _batches(data: Dataset, rows: np.ndarray, size: int, count: int) -> Iterator[Batch]:
    for number in range(count):
        chosen = rows[number * size : (number + 1) * size]
        yield data.feed(chosen), None if data.labels is None else np.asarray(data.labels[chosen])
