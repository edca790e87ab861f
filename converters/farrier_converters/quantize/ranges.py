"""From the statistics of a tensor to the range that its quantizer covers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .scales import Range

if TYPE_CHECKING:
    from .observe import Observer

METHODS = ("minmax", "average", "percentile", "entropy", "mse")
CANDIDATES = 64  # clipping bounds that the searches try, from all of the extremes down to SMALLEST_SHARE
SMALLEST_SHARE = 0.1
BINS_PER_LEVEL = 2  # fewer, and the entropy of a histogram says nothing about its rounding
UNLIKELY = 1e-9  # probability that stands for zero in the divergence


@dataclass(frozen=True)
class RangeSettings:
    """`percentile` of all values that the method of that name keeps; `bits` of the integers to come.

    `symmetric` where the range will reach as far below zero as above.
    """

    percentile: float = 99.99
    bits: int = 8
    symmetric: bool = False

    @property
    def levels(self) -> int:
        """Steps between the smallest and the largest integer; symmetric ones leave the lowest out."""
        return 2**self.bits - (2 if self.symmetric else 1)


def choose(seen: Observer, method: str, settings: RangeSettings) -> Range:
    """Return the range to quantize; zero is inside, and it is never wider than the extremes.

    `minmax`: all of it. `average`: the moving average of every batch's extremes (Jacob et al. 2018). `percentile`:
    all but a share of the values. `entropy`: least divergence of the rounded distribution from the true one (Migacz,
    "8-bit inference with TensorRT", 2017). `mse`: least squared error (Banner et al. 2019, arXiv 1810.05723).
    """
    extremes = Range(seen.low, seen.high)
    if method == "minmax" or not seen.reach:
        return extremes
    if method == "average":
        return Range(seen.mean_low, seen.mean_high)
    if method == "percentile":
        return _percentile(seen, settings.percentile)
    if settings.symmetric:
        bound = max(-seen.low, seen.high)
        extremes = Range(-bound, bound)
    search = _entropy if method == "entropy" else _least_error
    return search(seen, extremes, settings)


def _percentile(seen: Observer, percentile: float) -> Range:
    edges = np.linspace(-seen.reach, seen.reach, seen.counts.size + 1)
    share = np.cumsum(seen.counts) / max(seen.counts.sum(), 1)
    tail = (1 - percentile / 100) / (2 if seen.low < 0 < seen.high else 1)
    low = edges[np.searchsorted(share, tail, side="right")] if seen.low < 0 else 0.0
    high = edges[np.searchsorted(share, 1 - tail) + 1] if seen.high > 0 else 0.0
    return Range(max(float(low), seen.low), min(float(high), seen.high))


def _clippings(extremes: Range) -> list[Range]:
    """Return ranges to try: both ends cut at one magnitude, so that a far end comes closer first."""
    bounds = float(max(-extremes.low, extremes.high)) * np.linspace(1.0, SMALLEST_SHARE, CANDIDATES)
    return [Range(max(extremes.low, -b), min(extremes.high, b)) for b in bounds.tolist()]


def _least_error(seen: Observer, extremes: Range, settings: RangeSettings) -> Range:
    """Try clippings, and sum what rounding and clipping would cost each bin of the histogram.

    Exact zeros cost nothing: zero is always a level. That matters behind a Relu, where half of the values are.
    """
    centers, counts = seen.histogram()
    levels = settings.levels
    best, least = extremes, np.inf
    for extent in _clippings(extremes):
        step = (extent.high - extent.low) / levels
        zero = round(-extent.low / step)
        rounded = (np.clip(np.rint(centers / step) + zero, 0, levels) - zero) * step
        error = float(counts @ np.square(rounded - centers))
        if error < least:
            best, least = extent, error
    return best


def _entropy(seen: Observer, extremes: Range, settings: RangeSettings) -> Range:
    centers, counts = seen.histogram()
    width = 2 * seen.reach / seen.counts.size
    best, least = extremes, np.inf
    for extent in _clippings(extremes):
        if (extent.high - extent.low) / width < BINS_PER_LEVEL * (settings.levels + 1):
            continue
        divergence = _divergence(centers, counts, extent, settings.levels)
        if divergence < least:
            best, least = extent, divergence
    return best


def _divergence(centers: np.ndarray, counts: np.ndarray, extent: Range, levels: int) -> float:
    """Return the divergence (nats) of what a quantizer leaves of a histogram from the clipped histogram."""
    low, high = extent.low, extent.high
    inside = (centers >= low) & (centers <= high)
    if not inside.any():
        return np.inf
    kept = counts[inside]
    bins = np.rint((centers[inside] - low) / (high - low) * levels).astype(np.int64)
    occupied = np.bincount(bins, minlength=levels + 1)
    spread = np.bincount(bins, weights=kept, minlength=levels + 1)[bins] / occupied[bins]
    true = kept.copy()
    true[0] += counts[centers < low].sum()
    true[-1] += counts[centers > high].sum()
    true, rounded = true / true.sum(), spread / spread.sum()
    return float(np.sum(true * np.log(np.maximum(true, UNLIKELY) / np.maximum(rounded, UNLIKELY))))
