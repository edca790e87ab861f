"""Sums of u8 x s8 products two by two in 16 bits: which pairs saturate, and by how much a sum is wrong for it.

x86 without VNNI multiplies with `vpmaddubsw`: a pair of adjacent products becomes one int16, clipped to
[-32768, 32767]. ONNX Runtime's MLAS pairs neighbours along the reduction axis: for convolutions in the order kernel
row, kernel column, input channel. 32-bit sums are exact whatever their order, so a saturating sum is the exact one
less the excess of the few pairs whose weights are large enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

LEAST, MOST = -(1 << 15), (1 << 15) - 1
LARGEST_ACTIVATION = 255


@dataclass(frozen=True)
class Saturation:
    """Of one operator: how many pairs of products were summed, and how many of them saturated."""

    pairs: int = 0
    saturated: int = 0

    def __add__(self, other: Saturation) -> Saturation:
        return Saturation(self.pairs + other.pairs, self.saturated + other.saturated)


def doubtful(weights: np.ndarray, largest: np.ndarray | int = LARGEST_ACTIVATION) -> np.ndarray:
    """Say for each pair of neighbours in int8 weights [outputs, k] whether u8 activations up to `largest` saturate it.

    `largest` is [k]: what each weight meets at most; or one number for all.
    """
    (first, second), (left, right) = _pairs(weights), _pairs(np.broadcast_to(largest, (1, weights.shape[1])))
    most = left * np.maximum(first, 0) + right * np.maximum(second, 0)
    least = left * np.minimum(first, 0) + right * np.minimum(second, 0)
    return (most > MOST) | (least < LEAST)


def excess(
    weights: np.ndarray, largest: np.ndarray, plane: Callable[[int], np.ndarray]
) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield (outputs, what saturation takes from their sums, saturated pairs) for each pair that saturates.

    `weights` is int8 [outputs, k]; `plane(k)` gives the u8 activations that weight k meets, in any shape, none of them
    above `largest[k]`; and the middle result is int32 [outputs, *that shape].
    """
    first, second = _pairs(weights)
    where = doubtful(weights, largest)
    for pair in np.flatnonzero(where.any(axis=0)):
        outputs = np.flatnonzero(where[:, pair])
        left = plane(2 * pair)
        right = plane(2 * pair + 1) if 2 * pair + 1 < weights.shape[1] else np.zeros_like(left)
        shape = (-1, *(1,) * left.ndim)
        sums = first[outputs, pair].reshape(shape) * left.astype(np.int32)
        sums += second[outputs, pair].reshape(shape) * right.astype(np.int32)
        lost = np.maximum(sums - MOST, 0) + np.minimum(sums - LEAST, 0)
        count = int(np.count_nonzero(lost))
        if count:
            yield outputs, lost, count


def _pairs(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and the second weight of each pair, int32 [outputs, pairs]; an odd last one meets zero."""
    padded = np.pad(weights.astype(np.int32), ((0, 0), (0, weights.shape[1] % 2)))
    return padded[:, ::2], padded[:, 1::2]
