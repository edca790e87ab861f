"""What pruning is to reach, and what it must leave."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from farrier_contracts.errors import UsageError

from ..blocks import Block
from .costs import Costs

MULTIPLY_ADDS, MS, PARAMETERS = "multiply-adds", "ms", "parameters"
MEASURES = (MULTIPLY_ADDS, MS, PARAMETERS)


@dataclass(frozen=True)
class Goal:
    """`keep` is the share of the dense model's `measure` that may be left, above 0 and at most 1."""

    measure: str = MULTIPLY_ADDS
    keep: float = 0.5

    def __post_init__(self) -> None:
        """Raise UsageError for what means nothing."""
        if self.measure not in MEASURES:
            raise UsageError(f"the goal of pruning is one of {', '.join(MEASURES)}, not {self.measure!r}")
        if not 0 < self.keep <= 1:
            raise UsageError(
                f"pruning leaves a share above 0 and at most 1 of the {self.measure}, not {self.keep:g}"
            )

    def value(self, costs: Costs, gone: np.ndarray, dropped: Iterable[int] = ()) -> float:
        """Return the measure of what is left."""
        if self.measure == MS:
            return costs.ms(gone, dropped)
        if self.measure == PARAMETERS:
            return float(costs.parameters(gone, dropped))
        return float(costs.multiply_adds(gone, dropped))


@dataclass(frozen=True)
class Limits:
    """What has to stay: of each group at least one unit and the share `keep_least`; nothing of groups in `exclude`.

    `on_steps` lets counts end on the target's steps only, where predicted time falls; otherwise any count will do.
    `keep_blocks` is the share of all blocks that stays; of blocks that repeat, one stays at least. Where a model is cut
    in several rounds, `sizes` of groups and the number `blocks` are those it had at first; `stay` names blocks.
    """

    keep_least: float = 0.1
    exclude: frozenset[str] = frozenset()
    on_steps: bool = True
    keep_blocks: float = 0.3
    sizes: Mapping[str, int] = field(default_factory=dict)
    blocks: int = 0
    stay: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        """Raise UsageError for shares that are none."""
        if not 0 <= self.keep_least <= 1 or not 0 <= self.keep_blocks <= 1:
            raise UsageError("the share of a layer or of a family of blocks that stays lies between 0 and 1")

    def least(self, group: str, size: int) -> int:
        """Return how many units of a group that has `size` by now stay at least."""
        whole = self.sizes.get(group, size)
        return min(size, max(1, math.ceil(self.keep_least * whole - 1e-9)))

    def after(self, blocks: Iterable[Block], dropped: Iterable[Block]) -> Limits:
        """Return the limits of the round after one that had these blocks and dropped some of them."""
        blocks, gone = tuple(blocks), {block.name for block in dropped}
        families: dict[int, list[str]] = {}
        for block in blocks:
            families.setdefault(block.family, []).append(block.name)
        last = {
            name
            for names in families.values()
            if len(names) > 1 and len(set(names) - gone) == 1
            for name in set(names) - gone
        }
        return replace(self, blocks=self.blocks or len(blocks), stay=self.stay | last)
