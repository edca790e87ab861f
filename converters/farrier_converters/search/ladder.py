"""Which cut of a network to try next, so that few are trained: pure, cuts in, a cut out.

A cut is how many times fewer multiply-adds a network has than the original. A larger one is never slower, larger on
disk or better than a smaller one, as far as the search goes: so what a cut costs can be halved in on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

CUTS = (1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 8.0)
FIRST = 2.0  # tried first where nothing says how far one must go


def least(enough: Callable[[float], bool], cuts: Sequence[float] = CUTS) -> float | None:
    """Return the least of ascending cuts that is enough, None where not even the largest is; asks for few of them."""
    low, high = 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        if enough(cuts[middle]):
            high = middle
        else:
            low = middle + 1
    return cuts[low] if low < len(cuts) else None


def climb(tried: Mapping[float, bool], cuts: Sequence[float] = CUTS, *, first: float = FIRST) -> float | None:
    """Return the cut to try next in search of the largest that holds; None where it is found, or none does.

    `tried` says of each cut whether it held. Up from `first` every second cut, then halfway between the largest that
    held and the least that did not.
    """
    held = max((cuts.index(c) for c, good in tried.items() if good), default=-1)
    broke = min((cuts.index(c) for c, good in tried.items() if not good), default=len(cuts))
    if not tried:
        return cuts[min(bisect_left(cuts, first), len(cuts) - 1)]
    if broke == len(cuts):
        following = min(held + 2, len(cuts) - 1)
        return cuts[following] if following > held else None
    middle = (held + broke) // 2
    return cuts[middle] if held < middle < broke else None
