"""Small test sets made large enough that one answer is not half a point: copies with seeded noise."""

from __future__ import annotations

import numpy as np

SEED = 11


def noisy(rows: np.ndarray, *, copies: int, scale: float) -> np.ndarray:
    """Return the rows, then `copies` - 1 versions of them with Gaussian noise of deviation `scale`."""
    rng = np.random.default_rng(SEED)
    versions = [rows] + [rows + rng.normal(0, scale, rows.shape) for _ in range(copies - 1)]
    return np.concatenate(versions).astype(np.float32)
