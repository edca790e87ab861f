"""Neighbours in pictures and signals resemble each other; noise, and pixels in a wrong order, do not."""

from __future__ import annotations

import numpy as np

from .hypotheses import channel_axis

FEWEST = 4  # places along an axis to have neighbours


def smoothness(rows: np.ndarray) -> float | None:
    """Return the mean correlation of neighbours over the axes of space or time; None where there is no such axis."""
    axis = channel_axis(rows.shape)
    spatial = [a for a in range(1, rows.ndim) if a != axis and rows.shape[a] >= FEWEST]
    if rows.ndim == 3:
        spatial = [a for a in spatial if rows.shape[a] == max(rows.shape[1:])]
    if not spatial:
        return None
    wide = rows.astype(np.float64)
    over = tuple(a for a in range(1, rows.ndim) if a != axis)
    centred = wide - wide.mean(axis=over, keepdims=True)
    power = np.square(centred).mean()
    if power <= 0:
        return None
    found = []
    for a in spatial:
        ahead, behind = (np.take(centred, np.arange(i, rows.shape[a] - 1 + i), axis=a) for i in (1, 0))
        scale = np.sqrt(np.square(ahead).mean() * np.square(behind).mean())
        found.append(float((ahead * behind).mean() / max(scale, 1e-300)))
    return float(np.mean(found))
