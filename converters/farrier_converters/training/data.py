"""What training reads: batches of inputs with labels, in a fresh seeded order every epoch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ..data import LABEL_NAMES

Batch = tuple[Mapping[str, np.ndarray], "np.ndarray | None"]
Stream = Callable[[int], Iterable[Batch]]  # epoch -> its batches
Inputs = dict[str, np.ndarray]
Augment = Callable[[Inputs, np.random.Generator], Inputs]
Mix = Callable[[Inputs, np.ndarray, np.random.Generator], tuple[Inputs, np.ndarray]]


@dataclass(frozen=True)
class Rows:
    """A stream over arrays in memory (or mapped): shuffled by seed and epoch, cut into batches of `batch` rows.

    `inputs` are arrays by input name, rows first; `labels` one value per row, or None for learning from the float
    model. `augment(inputs, rng)` may change each batch, `mix(inputs, labels, rng)` both inputs and labels (see
    `augment`). A last batch of fewer rows is left out of an epoch, since a batch norm of few rows learns noise; with
    fewer rows than one batch, all of them are one.
    """

    inputs: Mapping[str, np.ndarray]
    labels: np.ndarray | None = None
    batch: int = 64
    seed: int = 0
    augment: Augment | None = None
    mix: Mix | None = None

    def __post_init__(self) -> None:
        """Raise InputError for no rows, arrays that differ in rows, or mixing without labels."""
        if self.batch < 1:
            raise UsageError(f"a batch has at least one row; it is {self.batch}")
        if not self.inputs:
            raise InputError("the training data holds no inputs")
        counts = {name: len(array) for name, array in self.inputs.items()}
        if self.labels is not None:
            counts["labels"] = len(self.labels)
        if 0 in counts.values():
            raise InputError("the training data holds no rows")
        if len(set(counts.values())) > 1:
            told = ", ".join(f"{name} {count}" for name, count in counts.items())
            raise InputError(f"the training data differs in its numbers of rows: {told}")
        if self.mix is not None and self.labels is None:
            raise InputError("rows are mixed together with their labels; the training data has none")

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.inputs.values())))

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said before training with them."""
        if self.rows >= self.batch:
            return ()
        return (f"there are {self.rows} rows, fewer than a batch of {self.batch}: all of them are one batch",)

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return max(self.rows // self.batch, 1)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.rows)
        for number in range(len(self)):
            inputs, labels = self._take(order[number * self.batch : (number + 1) * self.batch])
            if self.augment is not None:
                inputs = self.augment(inputs, rng)
            if self.mix is not None and labels is not None:
                inputs, labels = self.mix(inputs, labels, rng)
            yield inputs, labels

    def in_order(self) -> Iterator[Batch]:
        """Yield all rows as they are, a short last batch included."""
        for start in range(0, self.rows, self.batch):
            yield self._take(np.arange(start, min(start + self.batch, self.rows)))

    def _take(self, rows: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        inputs = {name: np.asarray(array[rows]) for name, array in self.inputs.items()}
        return inputs, None if self.labels is None else np.asarray(self.labels[rows])


@dataclass
class _Batches:
    """The stream that an iterable of batches makes; `begun` once it was."""

    data: Any
    names: tuple[str, ...]
    begun: bool = False

    def __len__(self) -> int:
        """Return the number of batches in an epoch; TypeError where that is not known."""
        return len(self.data)

    def __call__(self, _epoch: int) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        if self.begun and isinstance(self.data, Iterator):
            raise InputError(
                "the training data can be read only once; give a list, a DataLoader or a function of the epoch"
            )
        self.begun = True
        return (_batch(given, self.names) for given in self.data)


def _batch(given: Any, names: Sequence[str]) -> Batch:
    """Return a batch in the form of a stream's; raises InputError."""
    if isinstance(given, Mapping):
        label = next((name for name in LABEL_NAMES if name in given and name not in names), None)
        return _by_name(given, names), None if label is None else as_array(given[label])
    parts = list(given) if isinstance(given, (tuple, list)) else [given]
    if parts and isinstance(parts[0], Mapping) and len(parts) <= 2:
        labels = parts[1] if len(parts) == 2 else None
        return _by_name(parts[0], names), None if labels is None else as_array(labels)
    if not len(names) <= len(parts) <= len(names) + 1:
        raise InputError(f"a batch holds {len(parts)} arrays; the model takes {len(names)} and labels")
    items = [as_array(part) for part in parts]
    return dict(zip(names, items, strict=False)), items[len(names)] if len(items) > len(names) else None


def _by_name(given: Mapping[str, Any], names: Sequence[str]) -> Inputs:
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"a batch of the training data lacks the input {missing[0]!r}")
    return {name: as_array(given[name]) for name in names}


def stream(data: Any, names: Sequence[str]) -> Stream:
    """Return a stream from what a user has: a stream, or any iterable of batches (a torch DataLoader, a list).

    A batch is (inputs..., labels): the first items go to the inputs called `names`, one more is the labels. Or it is a
    mapping with the inputs by name and "labels" or "target", or (a mapping, labels). Raises InputError in its epochs
    for other batches, and for an iterator that is begun again.
    """
    if callable(data):
        given: Stream = data  # type: ignore[assignment]
        return given
    return _Batches(data, tuple(names))


def held_out(data: Any, names: Sequence[str]) -> Callable[[], Iterable[Batch]]:
    """Return a function that starts a pass over held-out batches: rows (in order), such a function, or any iterable."""
    if isinstance(data, Rows):
        return data.in_order
    if callable(data):
        given: Callable[[], Iterable[Batch]] = data  # type: ignore[assignment]
        return given
    batches = _Batches(data, tuple(names))
    passes = count()
    return lambda: batches(next(passes))


def repeatable(data: Stream) -> bool:
    """Say whether a stream can be begun more than once."""
    return not (isinstance(data, _Batches) and isinstance(data.data, Iterator))


def length(data: Any) -> int | None:
    """Return the number of batches in an epoch of a stream, None where it is not known."""
    try:
        return len(data)
    except TypeError:
        return None


def as_array(value: Any) -> np.ndarray:
    """Return a numpy array of what a loader gives: an array, a list of numbers, a torch tensor on any device."""
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
