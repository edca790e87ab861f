"""Global allocation: whatever loses least for what it gains goes first, until the goal is reached."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .costs import Axis
from .moves import block_move, block_worth, group_moves, layers_worth, shared_moves
from .state import Move, State

ROUNDS = 100_000  # moves at most: more than any model has units
ROUNDING = 1e-9  # of a ratio


def greedy(
    state: State,
    *,
    worths: Mapping[int, float] | None = None,
    progress: Callable[[float], None] = lambda _share: None,
) -> list[Move]:
    """Change the state until its goal is reached or nothing gains any more, and return the moves that were made.

    Widths of groups, of tensors that several groups share, and whole blocks compete by importance lost for time
    gained. What turned out not to be needed for the goal is then given back (see `_give_back`).
    """
    dense = state.goal.value(state.costs, state.gone & False)
    wanted = dense * state.goal.keep
    board = _Board(state, worths or {})
    made: list[Move] = []
    value = state.value()
    while value > wanted and len(made) < ROUNDS:
        move = board.best()
        if move is None:
            break
        state.apply(move)
        board.changed(move)
        made.append(move)
        value = state.value()
        progress(min(1.0, (dense - value) / max(dense - wanted, 1e-12)))
    _give_back(state, made, wanted)
    return made


class _Board:
    """The open moves of a state; only those whose nodes have changed are looked at again."""

    def __init__(self, state: State, worths: Mapping[int, float]) -> None:
        self.state, self.worths = state, worths
        self.dense = {number: layers_worth(state, number) for number in worths}
        self.shared = _shared(state)
        self.moves: dict[object, Move | None] = {}
        costs = state.costs
        self.owner = {int(u): g.name for g in costs.groups.groups for u in costs.units(g.name)}
        self.depends: dict[object, frozenset[int]] = {
            group.name: frozenset(node.index for node in costs.touching[group.name])
            for group in costs.groups.groups
        }
        for key in self.shared:
            self.depends[key] = frozenset().union(*(self.depends[name] for name in key[0]))
        for number in range(len(costs.blocks)):
            self.depends["block", number] = costs.inside[number]

    def best(self) -> Move | None:
        """Return the move with the lowest price; of equals, the one that gains most."""
        for key in self.depends:
            if key not in self.moves:
                self.moves[key] = self._look(key)
        found = [move for move in self.moves.values() if move is not None]
        return min(found, key=lambda move: (move.price, -move.gained), default=None)

    def changed(self, move: Move) -> None:
        """Forget the moves that hang on what a move changed."""
        costs = self.state.costs
        touched: set[int] = set()
        for name in {self.owner[int(unit)] for unit in move.units}:
            touched |= self.depends[name]
        if move.block is not None:
            touched |= costs.inside[move.block]
            for number in range(len(costs.blocks)):
                self.moves.pop(("block", number), None)
        for key, nodes in self.depends.items():
            if nodes & touched:
                self.moves.pop(key, None)

    def _look(self, key: object) -> Move | None:
        state = self.state
        if isinstance(key, str):
            return min(group_moves(state, key), key=lambda move: move.price, default=None)
        if key in self.shared:
            axis, kind = self.shared[key]  # type: ignore[index]
            moves = shared_moves(state, key[0], axis, kind)  # type: ignore[index]
            return min(moves, key=lambda move: move.price, default=None)
        number = key[1]  # type: ignore[index]
        return block_move(state, number, block_worth(state, number, self.worths, self.dense))


def _shared(state: State) -> dict[tuple[tuple[str, ...], int], tuple[Axis, str]]:
    """Return the tensors that gather units of several groups, each once, with the kind of layer that reads them."""
    owner = {}
    for group in state.costs.groups.groups:
        owner.update(dict.fromkeys(state.costs.units(group.name).tolist(), group.name))
    found: dict[tuple[tuple[str, ...], int], tuple[Axis, str]] = {}
    for node in state.costs.nodes:
        for axis in (node.inputs, node.outputs):
            names = tuple(dict.fromkeys(owner[int(unit)] for unit in axis.units))
            if len(names) > 1 and node.weighted:
                found.setdefault((names, axis.size), (axis, node.layer.kind))
    return found


def _give_back(state: State, made: list[Move], wanted: float) -> None:
    """Undo what the goal does not need, the most important first.

    Moves compete in time, also where the goal counts something else: what would bring back a larger share of the time
    than of what the goal counts stays gone.
    """
    if state.value() > wanted:
        return
    nodes = list(state.costs.nodes)
    for move in sorted(made, key=lambda move: -move.lost):
        value, cost = state.value(), state.spent()
        paid = state.currency(nodes)
        state.undo(move)
        # a move that others built upon may be needed to stay on a step
        slower = state.spent() * value > cost * state.value() * (1 + ROUNDING)
        if state.value() > wanted or state.currency(nodes) < paid or slower:
            state.apply(move)
        else:
            made.remove(move)
