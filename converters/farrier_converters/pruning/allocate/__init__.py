"""How many units of each group go, and which: from their importance, what they cost on the target, and a goal."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ..blocks import Block
from ..group import Groups
from ..importance.evidence import Scores
from ..staircase import Staircase
from .costs import Costs, Totals
from .goal import Goal, Limits
from .greedy import greedy
from .state import State
from .uniform import uniform

SCOPES = ("global", "layer")


@dataclass(frozen=True)
class Allocation:
    """What goes: `units` as `Units.find` numbers them, and `blocks`; what that leaves, and whether it is enough."""

    units: np.ndarray
    blocks: tuple[Block, ...]
    before: Totals
    after: Totals
    goal: Goal
    reached: bool


def allocate(
    groups: Groups,
    scores: Scores,
    goal: Goal,
    staircase: Staircase,
    *,
    limits: Limits = Limits(),
    scope: str = "global",
    blocks: Iterable[Block] = (),
    worths: Mapping[int, float] | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> Allocation:
    """Return what to remove. `scores` are those of `importance`; with `blocks`, these compete with channels.

    `worths` says what each matters, by its number (see `exchange`); without, as much as the layers in it.
    Raises InputError where nothing can go, or where even all that may go would not reach the goal and any count of
    channels is allowed; on steps, the most that makes the model faster is returned, with `reached` false.
    """
    if scope not in SCOPES:
        raise UsageError(f"channels go {' or '.join(SCOPES)}, not {scope!r}")
    blocks = tuple(blocks) if scope == "global" else ()
    if not groups.groups and not blocks:
        raise InputError(_nothing(groups))
    costs = Costs(groups, staircase, blocks)
    state = State.start(costs, scores, limits, goal)
    before = costs.totals(state.gone)
    if scope == "global":
        greedy(state, worths=worths, progress=progress)
    else:
        uniform(state)
    reached = state.value() <= goal.keep * goal.value(costs, state.gone & False) * (1 + 1e-9)
    if not reached and not limits.on_steps:
        raise InputError(_too_much(state))
    units = np.concatenate([np.array([], np.int64), *(g.units for g in groups.groups)])
    after = costs.totals(state.gone, state.dropped)
    dropped = tuple(block for number, block in enumerate(blocks) if number in state.dropped)
    return Allocation(units[state.gone], dropped, before, after, goal, reached)


def _nothing(groups: Groups) -> str:
    why = f": {groups.frozen[0].reason} ({groups.frozen[0].node})" if groups.frozen else ""
    return f"no channels of {groups.model.name} can be removed{why}"


def _too_much(state: State) -> str:
    """Say which layer would lose all that it has."""
    costs, limits = state.costs, state.limits
    least = {group.name: limits.least(group.name, group.size) for group in costs.groups.groups}
    at_least = [
        group
        for group in costs.groups.groups
        if group.name not in limits.exclude
        and int((~state.gone[costs.units(group.name)]).sum()) <= least[group.name]
    ]
    dense = state.goal.value(costs, state.gone & False)
    most = 1 - state.value() / dense
    name = max(at_least, key=lambda group: group.size).name if at_least else "a layer"
    kept = f"the {least[name]} channels of {name!r}" if at_least else "what is excluded"
    return (
        f"removing {1 - state.goal.keep:.0%} of the {state.goal.measure} would take {kept} that have to stay; "
        f"at most {most:.0%} can go"
    )
