"""Products of two results: what attention is made of."""

from __future__ import annotations

import numpy as np

from ..labels import squeezed
from ..site import Site


def product(site: Site) -> None:
    """Follow A [..., M, K] times B [..., K, N]; leading axes (heads) go in both at once.

    Where the summed axis has units of each head, they fall together: whole heads go.
    """
    rank = max(len(site.shape(0)), len(site.shape(1)), 2)
    if min(len(site.shape(0)), len(site.shape(1))) < 2:
        site.refuse("a vector times a matrix is left whole")
        return
    left, right = _padded(site, 0, rank), _padded(site, 1, rank)
    if left is None and right is None:
        return
    site.sums(0)
    site.sums(1)
    batch = range(rank - 2)
    for labels, other in ((left, 1), (right, 0)):
        if labels is not None and any(labels.shape[a] > 1 for a in batch):
            for axis in (rank - 2, rank - 1):
                site.units.tie_along(labels, axis)
            _with_other(site, labels, other, rank)
    left, right = _tied(site, left), _tied(site, right)
    _contract(site, left, right, rank)
    heads = [x for x in (left, right) if x is not None and any(x.shape[a] > 1 for a in batch)]
    if heads:
        for x in heads[1:]:
            site.units.tie(heads[0], x)
        site.set(heads[0])
        return
    rows = None if left is None or left.shape[rank - 2] == 1 else left
    columns = None if right is None or right.shape[rank - 1] == 1 else right
    if rows is not None and columns is not None:
        site.freeze(columns, "its channels lie on two axes")
        columns = None
    chosen, axis = (rows, rank - 2) if rows is not None else (columns, rank - 1)
    if chosen is not None:
        site.set_along(axis, chosen.reshape(-1))


def _padded(site: Site, position: int, rank: int) -> np.ndarray | None:
    labels = site.labels(position)
    if labels is None or labels.ndim < 2:
        site.freeze(labels, "a vector times a matrix is left whole")
        return None
    return labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def _tied(site: Site, labels: np.ndarray | None) -> np.ndarray | None:
    """Return labels with one element along each axis on which they fall together by now."""
    if labels is None:
        return None
    found = squeezed(site.units.find(labels))
    return None if found.size == 1 else found


def _with_other(site: Site, labels: np.ndarray, other: int, rank: int) -> None:
    """Let heads stay where the other factor has heads of its own that cannot go."""
    shape = site.shape(other)
    shape = (1,) * (rank - len(shape)) + tuple(shape)
    theirs = _padded(site, other, rank)
    for axis in range(rank - 2):
        there = 1 if theirs is None else theirs.shape[axis]
        if labels.shape[axis] > 1 and shape[axis] > 1 and there == 1:
            site.freeze(labels, "what it is multiplied with keeps its heads")


def _contract(site: Site, left: np.ndarray | None, right: np.ndarray | None, rank: int) -> None:
    """Tie the summed axes: what is left out of one factor is left out of the other."""
    first = None if left is None or left.shape[rank - 1] == 1 else left
    second = None if right is None or right.shape[rank - 2] == 1 else right
    if first is not None and second is not None:
        site.units.tie(np.moveaxis(first, rank - 1, rank - 2).squeeze(-1), second.squeeze(-1))
    else:
        site.freeze(first if first is not None else second, "what it is multiplied with stays")


RULES: dict = {}
