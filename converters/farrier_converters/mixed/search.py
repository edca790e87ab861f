"""Find the cheapest assignment whose *measured* drop is allowed, with few full validations. Pure.

Per-layer losses add up only roughly, and how they turn into the user's metric is not known beforehand. So the loss
that an assignment may have is found by bisection: for each loss the solver gives the cheapest assignment at once,
and only that one is validated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .solve import Assignment, Costs, solve, total

MOST_VALIDATIONS = 12
CLOSE = 1.02  # bisection ends when the loss allowed and the loss refused are this close, or what they cost
SMALLEST_SHARE = 1e-6  # of the loss of the cheapest assignment; less is no loss at all


@dataclass(frozen=True)
class Trial:
    """One validated assignment: its predicted loss and its measured drop."""

    assignment: Assignment
    loss: float
    drop: float


@dataclass(frozen=True)
class Found:
    """The best of the validated assignments that are allowed, None where there was none."""

    assignment: Assignment | None
    trials: tuple[Trial, ...]


class _Judge:
    """Validates each assignment once."""

    def __init__(self, costs: Costs, validate: Callable[[Assignment], float], most: int) -> None:
        self.costs, self.validate, self.left = costs, validate, most
        self.trials: dict[tuple[tuple[str, str], ...], Trial] = {}

    def drop(self, assignment: Assignment) -> float:
        key = tuple(sorted(assignment.items()))
        if key not in self.trials:
            self.left -= 1
            loss = total(self.costs, assignment, "loss")
            self.trials[key] = Trial(assignment, loss, self.validate(assignment))
        return self.trials[key].drop


def search(
    costs: Costs,
    validate: Callable[[Assignment], float],
    *,
    max_drop: float,
    minimize: str = "ms",
    limits: Mapping[str, float] | None = None,
    most_validations: int = MOST_VALIDATIONS,
) -> Found:
    """Return the cheapest assignment with `validate(assignment)` (the measured drop) <= `max_drop`.

    `minimize` is a cost of `solve`; `limits` may bound one that is neither it nor the loss. The first guess is the
    cheapest of all; each later one halves, on a logarithmic scale, the gap between the loss that was allowed and the
    loss that was not.
    """
    limits = dict(limits or {})
    judge = _Judge(costs, validate, most_validations)
    cheapest = _cheapest(costs, minimize, limits)
    safest = solve(costs, minimize="loss", limits=limits)
    if cheapest is None or safest is None:
        return Found(None, ())
    if judge.drop(cheapest) <= max_drop:
        return Found(cheapest, tuple(judge.trials.values()))
    best: Assignment | None = None
    refused, bound = total(costs, cheapest, "loss"), total(costs, cheapest, minimize)
    allowed = max(total(costs, safest, "loss"), refused * SMALLEST_SHARE)
    while judge.left > 1 and refused > allowed * CLOSE:
        if best is not None and total(costs, best, minimize) <= bound * CLOSE:
            break
        middle = (allowed * refused) ** 0.5
        guess = _cheapest(costs, minimize, {**limits, "loss": middle})
        if guess is None:
            allowed = middle
        elif judge.drop(guess) <= max_drop:
            best, allowed = guess, middle
        else:
            refused, bound = min(middle, total(costs, guess, "loss")), total(costs, guess, minimize)
    if best is None and judge.drop(safest) <= max_drop:
        best = safest
    return Found(best, tuple(judge.trials.values()))


def _cheapest(costs: Costs, minimize: str, limits: Mapping[str, float]) -> Assignment | None:
    """Return the assignment of least loss among those as cheap as the cheapest, to the error of measurement."""
    guess = solve(costs, minimize=minimize, limits=limits)
    if guess is None or minimize == "loss":
        return guess
    near = {name: limit for name, limit in limits.items() if name != "loss"}
    near[minimize] = total(costs, guess, minimize) * CLOSE
    better = solve(costs, minimize="loss", limits=near)
    return guess if better is None or total(costs, better, "loss") > total(costs, guess, "loss") else better
