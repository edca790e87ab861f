"""The moves that are open from a state: to good widths of a group or of a tensor of several, or without a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .costs import Axis, Node
from .state import Move, State

CHUNKS = 32  # steps from all units of a group to none, where any count will do
MOST_COUNTS = 24  # counts of one group that are looked at
AHEAD = 3  # good widths of a shared tensor that are looked at, from the widest on
WORTHWHILE = 1e-6  # of a node's time: less is rounding


def group_moves(state: State, group: str) -> Iterator[Move]:
    """Yield the moves of one group that gain something."""
    order, nodes = state.removable(group), state.nodes(group)
    if not len(order) or not nodes:
        return
    before = state.currency(nodes)
    for count in _counts(state, order, nodes):
        move = _move(state, order[:count], nodes, before)
        if move is not None:
            yield move


def shared_moves(state: State, groups: tuple[str, ...], axis: Axis, kind: str) -> Iterator[Move]:
    """Yield the moves of a tensor that gathers channels of several groups: its least important ones go."""
    free = np.concatenate([state.removable(group) for group in groups])
    counts = dict(zip(axis.units.tolist(), axis.counts.tolist(), strict=True))
    free = np.array([unit for unit in free if unit in counts], np.int64)
    if not len(free):
        return
    order = free[np.argsort(state.worth[free], kind="stable")]
    falls = np.cumsum([counts[int(unit)] for unit in order])
    width = axis.kept(state.gone)
    out = state.costs.left_out(state.dropped)
    nodes = {n.index: n for group in groups for n in state.costs.touching[group] if n.index not in out}
    if not nodes:
        return
    before = state.currency(list(nodes.values()))
    left = AHEAD
    for good in reversed(state.costs.good_widths(kind, width)):
        if good == width:
            continue
        count = int(np.searchsorted(falls, width - good)) + 1
        if count > len(order) or falls[count - 1] != width - good or not left:
            break
        left -= 1
        move = _move(state, order[:count], list(nodes.values()), before)
        if move is not None:
            yield move


def block_move(state: State, number: int, worth: float) -> Move | None:
    """Return the move that drops a block; None where it is gone, or its family has few left."""
    costs = state.costs
    block = costs.blocks[number]
    if number in state.dropped or block.name in state.limits.stay or not np.isfinite(worth):
        return None
    left = len(costs.blocks) - len(state.dropped)
    if left - 1 < max(1, state.limits.keep_blocks * (state.limits.blocks or len(costs.blocks))):
        return None
    family = [i for i, other in enumerate(costs.blocks) if other.family == block.family]
    if len(family) > 1 and sum(i not in state.dropped for i in family) == 1:
        return None
    inside = costs.inside[number]
    nodes = [node for node in costs.nodes if node.index in inside]
    before = state.currency(nodes)
    move = Move(np.array([], np.int64), worth, before, number)
    if not state.limits.on_steps and state.goal.measure == "parameters":
        dropped = state.dropped | {number}
        saved = costs.parameters(state.gone, state.dropped) - costs.parameters(state.gone, dropped)
        move = Move(move.units, worth, float(saved), number)
    return move if move.gained > 0 else None


def block_worth(state: State, number: int, worths: Mapping[int, float], dense: Mapping[int, float]) -> float:
    """Return the importance that goes with a block: what it was measured to be (`worths`), or that of its layers.

    Of a measured one, the share of its layers' importance that is still there counts: what its channels had of it was
    lost with them. `dense` holds what the layers of these blocks had at first.
    """
    left = layers_worth(state, number)
    if number not in worths:
        return left
    return worths[number] * (left / dense[number] if dense[number] > 0 else 1.0)


def layers_worth(state: State, number: int) -> float:
    """Return the importance of a block's layers: of each group, the share of its layers that lie inside."""
    costs, inside = state.costs, state.costs.inside[number]
    total = 0.0
    for group in costs.groups.groups:
        nodes = [node for node in costs.touching[group.name] if node.weighted]
        within = sum(node.index in inside for node in nodes)
        if within:
            units = costs.units(group.name)
            worth = state.worth[units][~state.gone[units]]
            total += float(worth[np.isfinite(worth)].sum()) * within / len(nodes)
    return total


def _move(state: State, units: np.ndarray, nodes: list[Node], before: float) -> Move | None:
    state.gone[units] = True
    after = state.currency(nodes)
    state.gone[units] = False
    gained = before - after
    if gained <= WORTHWHILE * before:
        return None
    return Move(units, float(state.worth[units].sum()), gained)


def _counts(state: State, order: np.ndarray, nodes: list[Node]) -> list[int]:
    """Return how many units to take at once: to where some layer ends on a step, or a small share of them."""
    if not state.limits.on_steps:
        return [min(max(1, len(order) // CHUNKS), len(order))]
    found: set[int] = set()
    for node in nodes:
        for axis in (node.outputs, node.inputs):
            mine = np.isin(axis.units, order)
            if not mine.any():
                continue
            each = int(axis.counts[mine][0])
            width = axis.kept(state.gone)
            good = state.costs.good_widths(node.layer.kind, width)
            found |= {(width - w) // each for w in good if (width - w) % each == 0}
    counts = sorted(count for count in found if 0 < count <= len(order))
    if len(counts) > MOST_COUNTS:  # steps are many where a layer is wide: then they are near each other
        counts = [counts[i] for i in np.unique(np.linspace(0, len(counts) - 1, MOST_COUNTS).astype(int))]
    return counts
