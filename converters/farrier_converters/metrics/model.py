"""The vocabulary of metrics: what one is, how it is fed, and what a drop means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

SMALLEST_ERROR = 1e-9  # an error below this counts as this, so that a relative drop stays finite
DIGITS = 12  # of a drop behind the point; the rest is rounding


class Meter(Protocol):
    """Sums up one evaluation, batch by batch."""

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Take one batch: the model's outputs, and the labels (one array) or the float model's outputs."""
        ...

    def value(self) -> float:
        """Return the metric over everything that was added."""
        ...


@dataclass(frozen=True)
class Metric:
    """A named way to judge a model. `relative`: a drop is a share of the baseline's value, not points."""

    name: str
    start: Callable[[], Meter]
    higher_is_better: bool = True
    relative: bool = False
    needs_labels: bool = True


def drop(metric: Metric, baseline: float, value: float) -> float:
    """Return how much worse `value` is than `baseline`; negative where it is better.

    In points for scores (0.01 = one point of 100), as a share of the baseline for errors (0.01 = 1 % more). Two answers
    of 500 are 0.004 exactly, which a budget of 0.004 allows.
    """
    worse = baseline - value if metric.higher_is_better else value - baseline
    return round(worse / max(abs(baseline), SMALLEST_ERROR) if metric.relative else worse, DIGITS)
