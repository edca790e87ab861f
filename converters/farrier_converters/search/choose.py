"""The no-regret rules: which of the measured candidates is delivered, and why each other one is not.

Pure: figures in, verdicts out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .budget import Budget

LATENCY_TOLERANCE = 0.05  # latencies closer than this are equal: the measurement cannot tell them apart
SIZE_TOLERANCE = 0.03  # sizes closer than this are equal to whoever stores or sends the file
DROP_TOLERANCE = 1e-9  # of arithmetic, not of measurement


@dataclass(frozen=True)
class Figures:
    """What the choice looks at. `drop` is against the float baseline.

    `timed` is False where the latency is a stand-in's and says nothing of the target; `deliverable` is False for a
    baseline that no engine of the target runs.
    """

    name: str
    drop: float
    latency_ms: float
    size_bytes: int
    timed: bool = True
    deliverable: bool = True


@dataclass(frozen=True)
class Verdict:
    """Why a candidate is or is not the one: `safe` is no worse than the baseline in anything promised."""

    name: str
    safe: bool
    feasible: bool
    kept: bool
    reason: str


@dataclass(frozen=True)
class Choice:
    """The delivered candidate's name, None where the budget cannot be met; `best` is the best there is."""

    delivered: str | None
    best: str
    verdicts: tuple[Verdict, ...]


def choose(
    baseline: Figures,
    candidates: Sequence[Figures],
    budget: Budget,
    *,
    tolerance: float = LATENCY_TOLERANCE,
) -> Choice:
    """Deliver the fastest candidate within the budget that is no regret; ties go to the smaller file.

    The baseline itself is a candidate wherever the target runs it. Latencies within `tolerance` of the fastest are
    ties; among files about as small, the one that drops least wins. What is made for an accelerator that is not here
    goes before what runs on the target's processor, and the smallest such file is taken for the fastest.
    """
    everyone = [baseline, *(c for c in candidates if c.name != baseline.name)]
    regrets = {c.name: regret(c, baseline, budget, tolerance=tolerance) for c in everyone}
    safe = [c for c in everyone if regrets[c.name] is None and c.deliverable]
    misses = {c.name: over_budget(c, budget) for c in safe}
    feasible = [c for c in safe if misses[c.name] is None]
    winner = fastest(feasible, tolerance=tolerance) if feasible else None
    nearest = safe or [c for c in everyone if c.deliverable] or everyone
    best = winner or min(nearest, key=lambda c: (_excess(c, budget), c.latency_ms, c.size_bytes))
    verdicts = []
    for c in everyone:
        reason = regrets[c.name] or misses.get(c.name) or _rank(c, best, feasible, tolerance=tolerance)
        verdicts.append(Verdict(c.name, c in safe, c in feasible, c is winner, reason))
    return Choice(winner.name if winner else None, best.name, tuple(verdicts))


def regret(c: Figures, baseline: Figures, budget: Budget, *, tolerance: float) -> str | None:
    """Return why delivering this would be regretted against the baseline, None where it would not."""
    if c is baseline:
        return None
    if not c.drop <= budget.max_drop + DROP_TOLERANCE:
        return f"drops {c.drop:.2%}, more than the {budget.max_drop:.2%} allowed"
    if not baseline.deliverable:
        return None  # it is no alternative
    if c.timed and c.latency_ms > baseline.latency_ms * (1 + tolerance):
        return f"slower than the original: {c.latency_ms:.3g} ms against {baseline.latency_ms:.3g} ms"
    if c.size_bytes > baseline.size_bytes:
        return f"larger than the original: {c.size_bytes} bytes against {baseline.size_bytes}"
    return None


def over_budget(c: Figures, budget: Budget) -> str | None:
    """Return which explicit limit this breaks, None where it keeps all."""
    if budget.max_latency_ms is not None and c.timed and c.latency_ms > budget.max_latency_ms:
        return f"takes {c.latency_ms:.3g} ms, more than the {budget.max_latency_ms:g} ms allowed"
    if budget.max_size_bytes is not None and c.size_bytes > budget.max_size_bytes:
        return f"has {c.size_bytes} bytes, more than the {budget.max_size_bytes} allowed"
    return None


def fastest(candidates: Sequence[Figures], *, tolerance: float) -> Figures:
    """Return the smallest of those that are as fast as the fastest, and of those about as small the best."""
    limit = min(c.latency_ms for c in candidates) * (1 + tolerance)
    ties = [c for c in candidates if not c.timed] or [c for c in candidates if c.latency_ms <= limit]
    small = min(c.size_bytes for c in ties) * (1 + SIZE_TOLERANCE)
    return min(
        (c for c in ties if c.size_bytes <= small),
        key=lambda c: (max(c.drop, 0.0), c.size_bytes, c.latency_ms, c.drop),
    )


def _excess(c: Figures, budget: Budget) -> float:
    """Return the worst ratio of cost to limit."""
    ratios = [0.0]
    if budget.max_latency_ms is not None:
        ratios.append(c.latency_ms / max(budget.max_latency_ms, 1e-9))
    if budget.max_size_bytes is not None:
        ratios.append(c.size_bytes / max(budget.max_size_bytes, 1))
    return max(ratios)


def _rank(c: Figures, best: Figures, feasible: Sequence[Figures], *, tolerance: float) -> str:
    if not c.deliverable:
        return "the target has no engine that runs it"
    if best.timed:
        return _comparison(c, best, feasible, tolerance=tolerance)
    if c is best:
        return "the smallest for the target's accelerator, whose time is measured on the device alone"
    return f"not smaller than {best.name}" if not c.timed else f"{best.name} is for the target's accelerator"


def _comparison(c: Figures, best: Figures, feasible: Sequence[Figures], *, tolerance: float) -> str:
    first = min(feasible, key=lambda f: f.latency_ms)
    if c is best and best.latency_ms <= first.latency_ms:
        return "the fastest within the budget"
    if c is best:
        nearer = max(best.drop, 0.0) < max(first.drop, 0.0)
        much = best.size_bytes * (1 + SIZE_TOLERANCE) < first.size_bytes
        gained = "nearer to the original" if nearer and not much else "smaller"
        return f"as fast as {first.name} within {tolerance:.0%}, and {gained}"
    if c.latency_ms > first.latency_ms * (1 + tolerance):
        return f"slower than {best.name}"
    loses = max(c.drop, 0.0) > max(best.drop, 0.0) and c.size_bytes <= best.size_bytes * (1 + SIZE_TOLERANCE)
    return f"as fast as {best.name} within {tolerance:.0%}, but " + ("drops more" if loses else "not smaller")
