"""Choose one precision per layer: the multiple-choice knapsack problem, solved by dynamic programming. Pure.

Source: Sinha and Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research 27(3), 1979; the scaling of
weights to whole steps is that of Ibarra and Kim, Journal of the ACM 22(4), 1975.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

STEPS = 2048  # into which a limit is cut; a layer's share is rounded up, so that no limit is ever broken
STEPS_OF_TWO = 320  # per limit where there are two
COSTS = ("loss", "bytes", "ms")


@dataclass(frozen=True)
class Cost:
    """What one layer costs in one precision: noise at the model's outputs, bytes in the file, milliseconds."""

    loss: float
    bytes: float
    ms: float


Costs = Mapping[str, Mapping[str, Cost]]  # layer -> precision -> cost
Assignment = dict[str, str]  # layer -> precision


def total(costs: Costs, assignment: Mapping[str, str], what: str) -> float:
    """Return the sum of one cost over an assignment."""
    return float(sum(getattr(costs[layer][way], what) for layer, way in assignment.items()))


def solve(costs: Costs, *, minimize: str, limits: Mapping[str, float]) -> Assignment | None:
    """Return the assignment with the least `minimize` whose other costs stay within `limits` (one or two of them).

    None where even the best cannot stay within. Limits hold exactly: shares are rounded up to steps of
    1/`STEPS` of what a limit leaves above the layers' least costs, so the result is optimal up to that rounding; what
    rounding leaves over is spent one layer at a time.
    """
    layers = sorted(costs)
    bounds = [name for name in COSTS if name in limits and np.isfinite(limits[name])]
    if not bounds:
        return {layer: _least(costs[layer], minimize) for layer in layers}
    if not layers:
        return {}
    rooms = []
    for name in bounds:
        least = sum(min(getattr(c, name) for c in costs[layer].values()) for layer in layers)
        rooms.append(limits[name] - least)
    if min(rooms) < 0:
        return None
    steps = STEPS if len(bounds) == 1 else STEPS_OF_TWO
    shape = tuple(steps + 1 for _ in bounds)
    tables = [_Layer(costs[layer], bounds, rooms, steps, minimize) for layer in layers]
    found = _walk(layers, tables, shape)
    return (
        None if found is None else _polished(costs, found, minimize, {name: limits[name] for name in bounds})
    )


class _Layer:
    """One layer's precisions with their shares of the limits in whole steps."""

    def __init__(
        self,
        ways: Mapping[str, Cost],
        bounds: Sequence[str],
        rooms: Sequence[float],
        steps: int,
        minimize: str,
    ) -> None:
        self.names = sorted(ways)
        self.values = [getattr(ways[name], minimize) for name in self.names]
        self.shares: list[tuple[int, ...]] = []
        for name in self.names:
            share = []
            for bound, room in zip(bounds, rooms, strict=True):
                over = getattr(ways[name], bound) - min(getattr(c, bound) for c in ways.values())
                if over <= 0:
                    share.append(0)
                elif room <= 0 or over > room:
                    share.append(steps + 1)
                else:
                    share.append(int(np.ceil(over / room * steps)))
            self.shares.append(tuple(share))


def _walk(layers: Sequence[str], tables: Sequence[_Layer], shape: tuple[int, ...]) -> Assignment | None:
    best = np.zeros(shape)  # the least cost of the layers so far, by the steps that they may take
    choices = []
    for table in tables:
        found = np.full(shape, np.inf)
        choice = np.full(shape, -1, np.int16)
        for index, (value, share) in enumerate(zip(table.values, table.shares, strict=True)):
            if any(s >= n for s, n in zip(share, shape, strict=True)):
                continue
            to = tuple(slice(s, None) for s in share)
            source = tuple(slice(None, n - s) for s, n in zip(share, shape, strict=True))
            offered = best[source] + value
            better = offered < found[to]
            found[to][better] = offered[better]
            choice[to][better] = index
        best = found
        choices.append(choice)
    place = tuple(n - 1 for n in shape)
    if not np.isfinite(best[place]):
        return None
    assignment: Assignment = {}
    for layer, table, choice in zip(reversed(layers), reversed(tables), reversed(choices), strict=True):
        index = int(choice[place])
        assignment[layer] = table.names[index]
        place = tuple(p - s for p, s in zip(place, table.shares[index], strict=True))
    return dict(sorted(assignment.items()))


def _polished(costs: Costs, assignment: Assignment, minimize: str, limits: Mapping[str, float]) -> Assignment:
    """Spend what rounding up left of the limits: change the layer that wins most, until none can be changed."""
    used = {name: total(costs, assignment, name) for name in limits}
    while True:
        moves = []
        for layer, way in assignment.items():
            for other, cost in sorted(costs[layer].items()):
                wins = getattr(costs[layer][way], minimize) - getattr(cost, minimize)
                after = {n: used[n] + getattr(cost, n) - getattr(costs[layer][way], n) for n in limits}
                if wins > 0 and all(after[n] <= limits[n] for n in limits):
                    moves.append((wins, layer, other, after))
        if not moves:
            return assignment
        _, layer, way, used = max(moves, key=lambda move: (move[0], move[1], move[2]))
        assignment = {**assignment, layer: way}


def _least(ways: Mapping[str, Cost], what: str) -> str:
    return min(sorted(ways), key=lambda name: getattr(ways[name], what))
