"""What happened in a training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class History:
    """One value per completed epoch in each list, and what went wrong in one sentence.

    `losses` are the means over the training batches, `validation_losses` those over the held-out ones, `scores` the
    held-out metric called `metric`; the latter two are empty without validation data (`scores` without labels too).
    `start` is (validation loss, score) before the first epoch. `rates` are the learning rates at the epochs' ends,
    `seconds` the durations. `best` is the index of the epoch whose weights were kept, -1 for those from before the
    first (None: there was no validation, and the last ones are kept).
    """

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    metric: str | None = None
    start: tuple[float, float | None] | None = None
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best: int | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as numbers, lists and strings."""
        return asdict(self)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> History:
        """Return what `to_dict` gave."""
        start = stored["start"]
        return cls(**{**stored, "start": None if start is None else tuple(start)})
