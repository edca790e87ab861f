"""Running statistics of one tensor: exact extremes, and a histogram that stretches as values grow."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from farrier_contracts.errors import InputError

from .ranges import METHODS, RangeSettings, choose
from .scales import Range

__all__ = ["BINS", "METHODS", "Observer"]

BINS = 8192  # over [-reach, reach]; even, so that zero is an edge
SMALLEST_REACH = 1e-30  # BINS over less would leave float32
WINDOW = 16  # batches that the moving average remembers; the first ones count alike


@dataclass
class Observer:
    """Takes batches and forgets them: its memory is `BINS` counters, whatever it has seen."""

    name: str
    low: float = 0.0
    high: float = 0.0
    mean_low: float = 0.0  # moving averages of each batch's extremes
    mean_high: float = 0.0
    reach: float = 0.0
    seen: int = 0
    batches: int = 0
    zeros: int = 0  # exact ones: a quantizer costs them nothing
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Count one batch; raises InputError for values that are not finite."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not np.isfinite(low) or not np.isfinite(high):
            raise InputError(
                f"tensor {self.name!r} is not finite on the calibration data; check data and model"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.seen += values.size
        self.batches += 1
        weight = max(1 / self.batches, 1 / WINDOW)
        self.mean_low += weight * (min(low, 0.0) - self.mean_low)
        self.mean_high += weight * (max(high, 0.0) - self.mean_high)
        bound = max(-low, high)
        if bound > self.reach:
            self._stretch(bound)
        self._count(values)

    def range(
        self, method: str, *, percentile: float = 99.99, bits: int = 8, symmetric: bool = False
    ) -> Range:
        """Return the range that `bits` bits should cover; see `ranges.choose` for the methods."""
        return choose(self, method, RangeSettings(percentile=percentile, bits=bits, symmetric=symmetric))

    def histogram(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the centres of the bins that are not empty, and their counts (float64); exact zeros left out."""
        counts = self.counts.astype(np.float64)
        counts[BINS // 2] -= self.zeros
        edges = np.linspace(-self.reach, self.reach, BINS + 1)
        occupied = counts > 0
        return ((edges[:-1] + edges[1:]) / 2)[occupied], counts[occupied]

    def _count(self, values: np.ndarray) -> None:
        self.zeros += values.size - int(np.count_nonzero(values))
        if not self.reach:
            self.counts[BINS // 2] += values.size
            return
        scaled = values.ravel() * np.float32(BINS / 2 / self.reach) + np.float32(BINS / 2)
        bins = scaled.astype(np.int32)
        self.counts += np.bincount(np.clip(bins, 0, BINS - 1, out=bins), minlength=BINS)

    def _stretch(self, bound: float) -> None:
        """Double the reach, two bins into one, until `bound` is inside."""
        if not self.reach:
            zeros = self.counts.sum()
            self.counts[:] = 0
            self.counts[BINS // 2] = zeros
            self.reach = max(bound, SMALLEST_REACH)
        while self.reach < bound:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
            self.reach *= 2
