"""Importance of the units of one graph, taken over to another that has the same constants: one without some blocks."""

from __future__ import annotations

import numpy as np

from ..group import Groups, sources
from ..labels import STAYS
from .evidence import Scores


def carry(groups: Groups, scores: Scores, others: Groups) -> Scores:
    """Return the importance of the units of `others` from that of the units that lie in the same constants.

    Of units that fall together in `others`, it is the sum. What lies where nothing was scored is infinite.
    """
    worth = by_unit(groups, scores)
    known = sources(groups, others)
    return {
        group.name: np.array(
            [sum(worth.get(source, np.inf) for source in known.get(int(u), {STAYS})) for u in group.units]
        )
        for group in others.groups
    }


def by_unit(groups: Groups, scores: Scores) -> dict[int, float]:
    """Return the importance of each unit by its number."""
    return {
        int(unit): float(value)
        for group in groups.groups
        for unit, value in zip(group.units, scores[group.name], strict=True)
    }
