"""What scales are stored as: float16, or 8 bits on a logarithmic grid that all weights of a model share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SMALLEST_HALF = float(np.finfo(np.float16).smallest_normal)
LARGEST_HALF = float(np.finfo(np.float16).max)
SMALLEST = 1e-30  # keeps products of scales and levels normal float32
LEVELS = 127  # magnitudes that a signed byte without 0 tells apart
HEADROOM = 4.0  # of the shared grid on both sides: blocks are clipped, and errors moved into them
BLOCK_REACH = 65536.0  # blocks so many times below the largest of their matrix are as good as zero
HALF_MARGIN = 256.0  # of a matrix's largest scale over the smallest that float16 holds exactly


@dataclass(frozen=True)
class SingleScales:
    """float32, for matrices whose scales leave float16."""

    def round(self, scales: np.ndarray) -> np.ndarray:
        """Return storable scales near these; never 0."""
        return _signed(np.maximum(np.abs(scales), SMALLEST), scales)


@dataclass(frozen=True)
class HalfScales:
    """float16."""

    def round(self, scales: np.ndarray) -> np.ndarray:
        """Return storable scales near these; never 0."""
        return _signed(np.clip(np.abs(scales), SMALLEST_HALF, LARGEST_HALF).astype(np.float16), scales)


@dataclass(frozen=True)
class LogScales:
    """A signed byte: sign * exp(lowest + step * (|byte| - 1)). The idea of quantizing scales once more is QLoRA's."""

    lowest: float
    step: float

    def codes(self, scales: np.ndarray) -> np.ndarray:
        """Return the bytes int8 of the nearest magnitudes."""
        magnitude = np.log(np.maximum(np.abs(scales).astype(np.float64), SMALLEST))
        index = np.clip(np.rint((magnitude - self.lowest) / self.step), 0, LEVELS - 1) + 1
        return np.where(scales < 0, -index, index).astype(np.int8)

    def values(self, codes: np.ndarray) -> np.ndarray:
        """Return the float32 scales of bytes."""
        magnitude = np.exp(self.lowest + self.step * (np.abs(codes.astype(np.float64)) - 1))
        return np.where(codes < 0, -magnitude, magnitude).astype(np.float32)

    def round(self, scales: np.ndarray) -> np.ndarray:
        """Return storable scales near these; never 0."""
        return self.values(self.codes(scales))


ScaleForm = SingleScales | HalfScales | LogScales


def log_scales(block_peaks: Iterable[np.ndarray], *, headroom: float = HEADROOM) -> LogScales:
    """Return the grid that serves all scales of a model, given each matrix's largest scale per block."""
    low, high = np.inf, 0.0
    for peaks in block_peaks:
        top = float(peaks.max(initial=0))
        if top > 0:
            high = max(high, top)
            low = min(low, float(peaks[peaks >= top / BLOCK_REACH].min()))
    if not high:
        low = high = 1.0
    low, high = max(low / headroom, SMALLEST), high * headroom
    return LogScales(float(np.log(low)), float(np.log(high / low)) / (LEVELS - 1))


def halves_fit(peaks: np.ndarray, levels: int) -> bool:
    """Say whether float16 scales can serve a matrix, given its largest magnitude per block."""
    top = float(peaks.max(initial=0)) / levels
    return top == 0 or SMALLEST_HALF * HALF_MARGIN <= top <= LARGEST_HALF


def _signed(magnitude: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.where(like < 0, np.float32(-1), np.float32(1)) * magnitude.astype(np.float32)
