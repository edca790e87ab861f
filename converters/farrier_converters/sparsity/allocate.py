"""How many weights each layer keeps, and which: from scores to masks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from .patterns import Blocks, NofM, Pattern
from .view import View

GLOBAL, LAYER, OUTPUT, ERK, LAMP = "global", "layer", "output", "erk", "lamp"
SCOPES = (GLOBAL, LAYER, OUTPUT, ERK, LAMP)
SLACK = 1e-9  # of a count, for ratios like 0.9 that no float holds

Scores = Mapping[str, np.ndarray]  # of each weight, [outputs, inputs, kernel], by layer
Masks = dict[str, np.ndarray]  # True where a weight is kept, in the same form


def masks(scores: Scores, views: Mapping[str, View], pattern: Pattern, ratio: float, scope: str) -> Masks:
    """Return which weights are kept: the best by their scores, so that a share `ratio` of all is zero.

    `scope` says what competes: all weights ("global"), those of a layer ("layer", and "erk", which gives small layers
    more), those of an output ("output"), or all after a layer's scores were levelled ("lamp"). Every row of units keeps
    its best one, so that no output falls silent; a layer, or an output, may so keep more than its share. An N:M pattern
    has a ratio of its own; less than that means that only a part of the groups has the pattern yet.
    Raises InputError where all layers together cannot reach the ratio.
    """
    if isinstance(pattern, NofM):
        share = min(ratio / pattern.ratio, 1.0)
        return {name: pattern.partial(values, share) for name, values in scores.items()}
    units = {name: pattern.units(values) for name, values in scores.items()}
    sizes = {name: pattern.sizes(scores[name].shape) for name in units}
    _check(sizes, ratio, pattern)
    if scope == LAMP:
        units = {name: lamp(values) for name, values in units.items()}
    if scope in (GLOBAL, LAMP):
        kept = _global(units, sizes, ratio)
    else:
        ratios = erk(views, ratio) if scope == ERK else dict.fromkeys(units, ratio)
        kept = {
            name: _by_output(values, sizes[name], ratios[name])
            if scope == OUTPUT
            else _best([values], [sizes[name]], ratios[name])[0]
            for name, values in units.items()
        }
    return {name: pattern.spread(mask, scores[name].shape) for name, mask in kept.items()}


def lamp(scores: np.ndarray) -> np.ndarray:
    """Return scores that compare between layers: each squared, over the sum of the squares that are not below it.

    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning", arXiv 2010.07611.
    """
    squares = np.square(scores.astype(np.float64)).reshape(-1)
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    found = np.zeros_like(squares)
    found[order] = squares[order] / np.maximum(rest, np.finfo(np.float64).tiny)
    return found.reshape(scores.shape)


def erk(views: Mapping[str, View], ratio: float) -> dict[str, float]:
    """Return the ratio of each layer by the Erdos-Renyi-kernel rule, which leaves small layers denser.

    A layer's density is proportional to (outputs + inputs + kernel sides) / (outputs * inputs * kernel pixels), at most
    1. Source: Evci et al., "Rigging the Lottery", arXiv 1911.11134, section 3.
    """
    raw = {
        name: (v.outputs + v.inputs + sum(v.taps)) / (v.outputs * v.inputs * v.kernel)
        for name, v in views.items()
    }
    dense: set[str] = set()
    while True:
        budget = (1 - ratio) * sum(v.size for v in views.values()) - sum(views[n].size for n in dense)
        weight = sum(raw[name] * views[name].size for name in raw if name not in dense)
        factor = budget / weight if weight else 0.0
        full = {name for name in raw if name not in dense and factor * raw[name] > 1}
        if not full:
            return {name: 0.0 if name in dense else max(0.0, 1 - factor * raw[name]) for name in raw}
        dense |= full


def check_scope(scope: str) -> None:
    """Raise UsageError for an unknown scope."""
    if scope not in SCOPES:
        raise UsageError(f"unknown scope {scope!r}; choose one of: {', '.join(SCOPES)}")


def _check(sizes: Mapping[str, np.ndarray], ratio: float, pattern: Blocks) -> None:
    """Refuse a ratio that empties outputs, whichever weights are chosen."""
    total = sum(int(s.sum()) for s in sizes.values())
    least = {name: int(s.min(1).sum()) for name, s in sizes.items()}  # one unit per row
    if sum(least.values()) <= (1 - ratio) * total + pattern.size:
        return
    tight = max(sizes, key=lambda name: least[name] / sizes[name].sum())
    most = 1 - sum(least.values()) / total
    raise InputError(
        f"a sparsity of {ratio:.1%} would empty whole outputs, first of {tight!r}; "
        f"at most {most:.1%} leaves each output one {'weight' if pattern.size == 1 else f'block {pattern}'}"
    )


def _global(units: Scores, sizes: Mapping[str, np.ndarray], ratio: float) -> Masks:
    return dict(zip(units, _best(list(units.values()), [sizes[n] for n in units], ratio), strict=True))


def _by_output(units: np.ndarray, sizes: np.ndarray, ratio: float) -> np.ndarray:
    if (sizes == sizes[:, :1]).all():  # the same number in every row: all rows at once
        count = max(1, int(np.ceil((1 - ratio) * units.shape[1] - SLACK)))
        order = np.argsort(-units, axis=1, kind="stable")[:, :count]
        mask = np.zeros(units.shape, bool)
        np.put_along_axis(mask, order, values=True, axis=1)
        return mask
    rows = [_best([row[None]], [size[None]], ratio)[0][0] for row, size in zip(units, sizes, strict=True)]
    return np.stack(rows)


def _best(units: list[np.ndarray], sizes: list[np.ndarray], ratio: float) -> list[np.ndarray]:
    """Keep the best unit of each row, and then the best of all, while they fit."""
    forced = [np.zeros(u.shape, bool) for u in units]
    for mask, values in zip(forced, units, strict=True):
        mask[np.arange(len(mask)), values.argmax(1)] = True
    flat, size = (
        np.concatenate([u.reshape(-1) for u in units]),
        np.concatenate([s.reshape(-1) for s in sizes]),
    )
    kept = np.concatenate([mask.reshape(-1) for mask in forced])
    budget = (1 - ratio) * int(size.sum())
    left = int(np.ceil(budget - SLACK * size.sum())) - int(size[kept].sum())
    if left > 0:
        free = np.flatnonzero(~kept)
        kept[_most_valuable(flat[free], size[free], left, free)] = True
    ends = np.cumsum([u.size for u in units])[:-1]
    return [part.reshape(u.shape) for part, u in zip(np.split(kept, ends), units, strict=True)]


def _most_valuable(scores: np.ndarray, sizes: np.ndarray, left: int, places: np.ndarray) -> np.ndarray:
    """Return the places of the best units that hold at most `left` weights; the first wins a tie."""
    if (sizes == 1).all():
        if left >= len(scores):
            return places
        threshold = np.partition(scores, len(scores) - left)[len(scores) - left]
        above = np.flatnonzero(scores > threshold)
        equal = np.flatnonzero(scores == threshold)[: left - len(above)]
        return places[np.concatenate([above, equal])]
    order = np.argsort(-scores, kind="stable")
    return places[order[np.cumsum(sizes[order]) <= left]]
