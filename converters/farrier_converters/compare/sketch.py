"""A histogram of one tensor that stretches as values grow, and what a quantizer would cost on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 8192  # over [-reach, reach]; even, so that zero is an edge
SEARCHED = 48  # bounds that the search for the best range tries on each side
SMALLEST_REACH = 1e-30


@dataclass(frozen=True)
class Cost:
    """Squared error of a quantizer, summed over all values: what lies outside of its range, and its rounding.

    `below` and `above` are shares of the values that lie more than a step outside.
    """

    clipping: float
    rounding: float
    below: float
    above: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.clipping + self.rounding


@dataclass
class Sketch:
    """Takes batches and forgets them: its memory is `BINS` counters. Bin centres stand for the values."""

    low: float = 0.0
    high: float = 0.0
    reach: float = 0.0
    seen: int = 0
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Count one batch; values that are not finite are left out."""
        flat = values.ravel().astype(np.float64)
        flat = flat[np.isfinite(flat)]
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        self.low = min(low, self.low) if self.seen else low
        self.high = max(high, self.high) if self.seen else high
        self.seen += flat.size
        bound = max(abs(low), abs(high), SMALLEST_REACH)
        if not self.reach:
            self.reach = bound
        while self.reach < bound:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[BINS // 4 : BINS // 4 + BINS // 2] = merged
            self.reach *= 2
        bins = np.clip((flat / self.reach + 1) * (BINS / 2), 0, BINS - 1).astype(np.int64)
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def centers(self) -> np.ndarray:
        """The middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach

    def cost(self, low: float, high: float, levels: int) -> Cost:
        """Return what a quantizer of `levels` steps from `low` to `high` costs; rounding is uniform, step^2 / 12.

        Exact zeros cost nothing, and no value costs more by rounding than by becoming zero.
        """
        centers, counts = self.centers, self.counts.astype(np.float64)
        over, under = np.maximum(centers - high, 0), np.maximum(low - centers, 0)
        outside = (over > 0) | (under > 0)
        step = (high - low) / max(levels, 1)
        rounding = np.minimum(step**2 / 12, np.square(centers))
        total = max(counts.sum(), 1.0)
        return Cost(
            clipping=float((counts * (over**2 + under**2)).sum()),
            rounding=float((counts * rounding)[~outside].sum()),
            below=float(counts[under > step].sum() / total),
            above=float(counts[over > step].sum() / total),
        )

    def best(self, levels: int, *, symmetric: bool = False) -> tuple[float, float]:
        """Return the range that holds zero with the least squared error (Banner et al., arXiv 1810.05723)."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        if symmetric:
            low, high = -max(-low, high), max(-low, high)
        shares = np.geomspace(1.0, 1 / 64, SEARCHED)
        costs = [self.cost(low * s, high * s, levels).total for s in shares]
        share = float(shares[int(np.argmin(costs))])
        return low * share, high * share

    def percentile(self, share: float) -> float:
        """Return the magnitude below which this share of the values lies."""
        order = np.argsort(np.abs(self.centers), kind="stable")
        total = np.cumsum(self.counts[order])
        at = int(np.searchsorted(total, share * max(total[-1], 1)))
        return float(np.abs(self.centers[order][min(at, BINS - 1)]))
