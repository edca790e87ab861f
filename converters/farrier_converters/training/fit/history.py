"""What happened in a training, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """One value per completed epoch in each list, and what went wrong in one sentence.

    `losses` are the means over the training batches, `validation_losses` those over the held-out ones, `scores` the
    held-out metric called `metric`; the latter two are empty without validation data (`scores` without labels too).
    `rates` are the learning rates at the epochs' ends, `seconds` the durations. `best` is the index of the epoch whose
    weights were kept (None: the last one's).
    """

    losses: list[float] = field(default_factory=list)
    validation_losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    metric: str | None = None
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    best: int | None = None
    note: str | None = None
