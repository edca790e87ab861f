"""Importance of the units of one graph, taken over to another that has the same constants: one without some blocks."""

from __future__ import annotations

import numpy as np

from ..group import Groups
from ..labels import STAYS
from .evidence import Scores


def carry(groups: Groups, scores: Scores, others: Groups) -> Scores:
    """Return the importance of the units of `others` from that of the units that lie in the same constants.

    Of units that fall together in `others`, it is the sum. What lies where nothing was scored is infinite.
    """
    worth = {
        int(unit): float(value)
        for group in groups.groups
        for unit, value in zip(group.units, scores[group.name], strict=True)
    }
    roots = {(s.tensor, s.axis): groups.found.units.find(s.labels) for s in groups.found.slots}
    known: dict[int, set[int]] = {}
    for slot in others.found.slots:
        mine = roots.get((slot.tensor, slot.axis))
        if mine is not None:
            theirs = others.found.units.find(slot.labels)
            pairs = np.unique(np.stack([theirs.ravel(), mine.ravel()], 1), axis=0)
            for unit, source in pairs.tolist():
                if unit != STAYS:
                    known.setdefault(unit, set()).add(source)
    return {
        group.name: np.array(
            [sum(worth.get(source, np.inf) for source in known.get(int(u), {STAYS})) for u in group.units]
        )
        for group in others.groups
    }
