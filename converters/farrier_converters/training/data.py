"""What training reads: batches of inputs with labels, in a fresh seeded order every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError

Batch = tuple[Mapping[str, np.ndarray], "np.ndarray | None"]
Stream = Callable[[int], Iterable[Batch]]  # epoch -> its batches
Augment = Callable[[dict[str, np.ndarray], np.random.Generator], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Rows:
    """A stream over arrays in memory (or mapped): shuffled by seed and epoch, cut into batches of `batch` rows.

    `inputs` are arrays by input name, rows first; `labels` one value per row, or None for learning from the float
    model. `augment(inputs, rng)` may change each batch. A last batch of fewer rows is left out of an epoch, since a
    batch norm of few rows learns noise; with fewer rows than one batch, all of them are one.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    batch: int = 64
    seed: int = 0
    augment: Augment | None = None

    def __post_init__(self) -> None:
        """Raise InputError for arrays that differ in rows."""
        counts = {len(a) for a in (*self.inputs.values(), *(() if self.labels is None else (self.labels,)))}
        if len(counts) != 1 or 0 in counts:
            raise InputError("training needs arrays with the same number of rows, at least one")

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(len(next(iter(self.inputs.values()))) // self.batch, 1)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(next(iter(self.inputs.values()))))
        for number in range(len(self)):
            rows = order[number * self.batch : (number + 1) * self.batch]
            inputs = {name: np.asarray(array[rows]) for name, array in self.inputs.items()}
            if self.augment is not None:
                inputs = self.augment(inputs, rng)
            yield inputs, None if self.labels is None else np.asarray(self.labels[rows])


@dataclass(frozen=True)
class _Batches:
    """The stream that an iterable of batches makes."""

    data: Any
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of batches in an epoch; TypeError where that is not known."""
        return len(self.data)

    def __call__(self, _epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        names = self.names
        for batch in self.data:
            items = [as_array(item) for item in (batch if isinstance(batch, (tuple, list)) else (batch,))]
            if not len(names) <= len(items) <= len(names) + 1:
                raise InputError(
                    f"a batch holds {len(items)} arrays; the model takes {len(names)} and labels"
                )
            inputs = dict(zip(names, items, strict=False))
            yield inputs, items[len(names)] if len(items) > len(names) else None


def stream(data: Any, names: Sequence[str]) -> Stream:
    """Return a stream from what a user has: a stream, or any iterable of batches (a torch DataLoader, a list).

    A batch is (inputs..., labels): the first items go to the inputs called `names`, one more is the labels.
    """
    if callable(data):
        given: Stream = data  # type: ignore[assignment]
        return given
    return _Batches(data, tuple(names))


def length(data: Any) -> int | None:
    """Return the number of batches in an epoch of a stream, None where it is not known."""
    try:
        return len(data)
    except TypeError:
        return None


def as_array(value: Any) -> np.ndarray:
    """Return a numpy array of what a loader gives: an array, a list of numbers, a torch tensor on any device."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
