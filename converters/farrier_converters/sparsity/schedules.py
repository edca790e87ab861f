"""How sparsity rises while a network trains."""

from __future__ import annotations

import math
from collections.abc import Callable

from farrier_contracts.errors import UsageError

ONE_SHOT, CONSTANT, CUBIC, ONE_CYCLE = "one-shot", "constant", "cubic", "one-cycle"
STEEPNESS, OFFSET = 14.0, 5.0  # alpha and beta of one-cycle pruning


def one_shot(share: float) -> float:
    """Return 1: all at once, before the first step."""
    return 1.0 if share >= 0 else 0.0


def cubic(share: float) -> float:
    """Return the part of the final ratio at a share 0..1 of the ramp: fast first, slow at the end.

    Source: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878.
    """
    return 1 - (1 - min(max(share, 0.0), 1.0)) ** 3


def one_cycle(share: float) -> float:
    """Return the part of the final ratio at a share 0..1 of the ramp: a sigmoid, steepest after a third.

    Source: Hubens et al., "One-Cycle Pruning: Pruning ConvNets Under a Tight Training Budget", arXiv 2107.02086.
    """
    end = 1 + math.exp(-STEEPNESS + OFFSET)
    return end / (1 + math.exp(-STEEPNESS * min(max(share, 0.0), 1.0) + OFFSET))


SCHEDULES: dict[str, Callable[[float], float]] = {
    ONE_SHOT: one_shot,  # the mask never changes
    CONSTANT: one_shot,  # the whole ratio from the first step on, chosen anew at each update
    CUBIC: cubic,
    ONE_CYCLE: one_cycle,
}


def get(name: str) -> Callable[[float], float]:
    """Return the schedule of that name; raises UsageError."""
    if name not in SCHEDULES:
        raise UsageError(f"unknown schedule {name!r}; choose one of: {', '.join(SCHEDULES)}")
    return SCHEDULES[name]
