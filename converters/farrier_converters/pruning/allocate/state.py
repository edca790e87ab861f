"""What has gone so far while an allocation is being found, and the moves that it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..importance.evidence import Scores
from .costs import Costs, Node
from .goal import MS, Goal, Limits


@dataclass(frozen=True, eq=False)
class Move:
    """Units (places in the numbering) or a block that go together: the importance lost, and what is gained.

    `gained` is in the currency by which moves compete: milliseconds, or the goal's own measure.
    """

    units: np.ndarray
    lost: float
    gained: float
    block: int | None = None

    @property
    def price(self) -> float:
        """Importance lost for each unit of currency gained."""
        return self.lost / self.gained


@dataclass
class State:
    """The units and blocks that have gone; `worth` [units] is the importance of each unit, infinite where it stays."""

    costs: Costs
    worth: np.ndarray
    limits: Limits
    goal: Goal
    gone: np.ndarray
    dropped: set[int] = field(default_factory=set)

    @staticmethod
    def start(costs: Costs, scores: Scores, limits: Limits, goal: Goal) -> State:
        """Return the state of the dense model."""
        worth = np.empty(costs.count)
        for group in costs.groups.groups:
            stays = group.name in limits.exclude
            worth[costs.units(group.name)] = np.inf if stays else scores[group.name]
        return State(costs, worth, limits, goal, np.zeros(costs.count, bool))

    def removable(self, group: str) -> np.ndarray:
        """Return the units of a group that may still go, the least important first."""
        units = self.costs.units(group)
        free = units[~self.gone[units] & np.isfinite(self.worth[units])]
        most = int((~self.gone[units]).sum()) - self.limits.least(group, len(units))
        return free[np.argsort(self.worth[free], kind="stable")][: max(most, 0)]

    def nodes(self, group: str) -> list[Node]:
        """Return the nodes that a group's width makes dearer or cheaper, without those of blocks that have gone."""
        out = self.costs.left_out(self.dropped)
        return [node for node in self.costs.touching[group] if node.index not in out]

    @property
    def paid_in_time(self) -> bool:
        """Whether moves compete by predicted milliseconds, whatever the goal counts."""
        return self.limits.on_steps or self.goal.measure == MS

    def currency(self, nodes: list[Node]) -> float:
        """Return what these nodes cost in the currency of moves."""
        if self.paid_in_time:
            return sum(self.costs.node_ms(node, self.gone) for node in nodes)
        if self.goal.measure == "parameters":
            return float(self.costs.parameters(self.gone, self.dropped))
        return float(sum(self.costs.node_multiply_adds(node, self.gone) for node in nodes))

    def value(self) -> float:
        """Return the goal's measure of what is left."""
        return self.goal.value(self.costs, self.gone, self.dropped)

    def spent(self) -> float:
        """Return the currency that is left: predicted milliseconds of the run, or the goal's measure."""
        return self.costs.ms(self.gone, self.dropped) if self.paid_in_time else self.value()

    def apply(self, move: Move) -> None:
        """Let a move's units and block go."""
        self.gone[move.units] = True
        if move.block is not None:
            self.dropped.add(move.block)

    def undo(self, move: Move) -> None:
        """Bring them back."""
        self.gone[move.units] = False
        if move.block is not None:
            self.dropped.discard(move.block)
