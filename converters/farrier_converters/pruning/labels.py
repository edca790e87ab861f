"""Which channel elements stand and fall together: a union-find over units.

Every element of a prunable axis is a unit with a number; operators tie units of what they join. Unit 0 stands for
everything that has to stay.
"""

from __future__ import annotations

import numpy as np

STAYS = 0  # the unit of everything that cannot be removed


class Units:
    """Disjoint sets of units; arrays of unit numbers are called labels."""

    def __init__(self) -> None:
        self._parents = np.zeros(1, np.int64)

    def new(self, count: int) -> np.ndarray:
        """Return labels [count] of units of their own."""
        first = len(self._parents)
        made = np.arange(first, first + count, dtype=np.int64)
        self._parents = np.concatenate([self._parents, made])
        return made

    def find(self, labels: np.ndarray) -> np.ndarray:
        """Return the number that stands for the set of each label; 0 for what stays."""
        found = self._parents[labels]
        while True:
            further = self._parents[found]
            if np.array_equal(further, found):
                self._parents[labels] = found  # shorter ways for the next search
                return found
            found = further

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Let units that stand at the same place of two arrays (which may broadcast) fall together."""
        pairs = np.stack(np.broadcast_arrays(self.find(first), self.find(second))).reshape(2, -1)
        pairs = np.unique(pairs[:, pairs[0] != pairs[1]], axis=1)
        for left, right in pairs.T:
            a, b = self._root(int(left)), self._root(int(right))
            if a != b:
                self._parents[max(a, b)] = min(a, b)  # the smaller one stands: 0 is never below another

    def freeze(self, labels: np.ndarray) -> None:
        """Let units stay."""
        self.tie(labels, np.array(STAYS))

    def tie_along(self, labels: np.ndarray, axis: int) -> None:
        """Let all units along an axis fall together."""
        if labels.shape[axis] > 1:
            self.tie(labels, np.take(labels, [0], axis=axis))

    def _root(self, unit: int) -> int:
        while self._parents[unit] != unit:
            unit = int(self._parents[unit])
        return unit


def spread(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels repeated along the axes that they do not tell apart, as a tensor of this shape has them."""
    return np.broadcast_to(labels, shape)


def squeezed(labels: np.ndarray) -> np.ndarray:
    """Return labels with one element along each axis in which they do not differ."""
    for axis in range(labels.ndim):
        first = np.take(labels, [0], axis=axis)
        if labels.shape[axis] > 1 and bool((labels == first).all()):
            labels = first
    return labels
