"""What whole blocks matter in the importance of channels, so that both can compete for the same goal.

A block's layers add up to far more importance than the network loses without it: in a residual network the blocks
around it do nearly the same work (Veit et al., "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", arXiv 1605.06431). So both are measured alike, by how far the outputs move: without the block, and without
the channels that would go first. The importance of these channels for that movement is the rate of exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .. import blocks as whole
from ..apply import remove
from ..group import Groups
from ..importance.carry import by_unit
from ..importance.evidence import Scores
from .effect import answers, change

PROBES = (0.05, 0.1, 0.2, 0.4)  # of the goal's measure: what channels alone are asked for
Choose = Callable[[float], np.ndarray]  # from the share that may be left to the units that go


def worths(
    groups: Groups,
    scores: Scores,
    found: Sequence[whole.Block],
    choose: Choose,
    rows: Sequence[Mapping[str, np.ndarray]],
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> dict[int, float]:
    """Return the importance of each block by its number, in the unit of `scores`; infinite where it must stay.

    `choose(keep)` gives the channels that go first. Raises InputError where ONNX Runtime refuses the model or `rows`.
    """
    changes = np.array(whole.importance(groups.model, found, rows, progress=progress))
    known = changes[np.isfinite(changes)]
    rate = _rate(groups, scores, choose, rows, float(np.median(known)) if known.size else 0.0)
    return {number: float(moved) * rate for number, moved in enumerate(changes)}


def _rate(
    groups: Groups,
    scores: Scores,
    choose: Choose,
    rows: Sequence[Mapping[str, np.ndarray]],
    enough: float,
) -> float:
    """Return importance over movement, of channels that move the outputs as far as a block does; 1 if none can go."""
    worth = by_unit(groups, scores)
    wanted = answers(groups.model, rows)
    rate, before = 1.0, 0
    for share in PROBES:
        units = choose(1 - share)
        if len(units) == before:
            continue
        before = len(units)
        lost = sum(worth[int(unit)] for unit in units)
        moved = change(wanted, answers(remove(groups, units).model, rows))
        if moved > 0 and lost > 0:
            rate = lost / moved
        if moved >= enough:
            break
    return rate
