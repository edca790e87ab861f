"""Weights as signed integers with one scale for each index of some axes. No graph, no I/O."""

from __future__ import annotations

import numpy as np

from farrier_contracts.errors import InputError

from ..scales import SMALLEST_SCALE

MOST_SCALES = 16  # elements that share one scale, at least; fewer and the scales outweigh the integers


def quantize(values: np.ndarray, kept: tuple[int, ...], *, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 integers, symmetric around zero, and float32 scales that broadcast against them."""
    limit = 2 ** (bits - 1) - 1
    summed = tuple(axis for axis in range(values.ndim) if axis not in kept)
    bound = np.abs(values).max(axis=summed, keepdims=True)
    scale = np.maximum(bound / limit, SMALLEST_SCALE).astype(np.float32)
    return np.clip(np.rint(values / scale), -limit, limit).astype(np.int8), scale


def best_axis(values: np.ndarray, *, bits: int = 8) -> tuple[int, ...]:
    """Return the axis whose indices should have scales of their own: the one with the least squared error."""
    choices: list[tuple[int, ...]] = [()]
    choices += [(a,) for a in range(values.ndim) if values.size // values.shape[a] >= MOST_SCALES]
    errors = []
    for kept in choices:
        integers, scale = quantize(values, kept, bits=bits)
        errors.append(float(np.square(integers * scale - values, dtype=np.float64).sum()))
    return choices[int(np.argmin(errors))]


def require_finite(name: str, values: np.ndarray) -> None:
    """Raise InputError for weights that hold NaN or infinity."""
    if not np.isfinite(values).all():
        raise InputError(f"the weights {name!r} hold values that are not finite; the model is damaged")
