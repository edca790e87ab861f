"""Allocation per layer: every group loses the same share, and keeps what it takes to end on a step."""

from __future__ import annotations

import numpy as np

from .moves import group_moves
from .state import State


def uniform(state: State) -> None:
    """Change the state by the smallest share of all groups that reaches the goal, or by the largest there is."""
    groups = state.costs.groups.groups
    shares = sorted({count / group.size for group in groups for count in range(1, group.size + 1)})
    wanted = state.goal.keep * state.value()
    low, high = 0, len(shares) - 1
    while low < high:
        middle = (low + high) // 2
        state.gone[:] = _without(state, shares[middle])
        if state.value() > wanted:
            low = middle + 1
        else:
            high = middle
    state.gone[:] = _without(state, shares[low]) if shares else False


def _without(state: State, share: float) -> np.ndarray:
    """Return the units that go where every group loses this share; counts that stay are rounded up to a step."""
    state.gone[:] = False
    for group in state.costs.groups.groups:
        most = int(share * group.size + 1e-9)
        if state.limits.on_steps:
            moves = [move for move in group_moves(state, group.name) if len(move.units) <= most]
            units = (
                max(moves, key=lambda move: move.gained).units if moves else state.removable(group.name)[:0]
            )
        else:
            units = state.removable(group.name)[:most]
        state.gone[units] = True
    return state.gone.copy()
