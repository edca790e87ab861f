"""Causes where branches meet: an Add or a Concat whose branches differ much in size."""

from __future__ import annotations

import math

from .activations import BAD_RATIO, WIDE
from .model import CLASH, Cure, Finding, JoinFacts

DROWNED_DB = 15.0  # a branch this little above the rounding of the sum is lost in it
LARGER = 30.0  # and another this much larger, in magnitude


def join_cause(f: JoinFacts) -> Finding | None:
    """Return the clash of scales at one join, or None."""
    return _shared(f) if f.shared else _drowned(f)


def _shared(f: JoinFacts) -> Finding | None:
    used = [(b.data[1] - min(b.data[0], 0.0)) / max(b.extent[1] - b.extent[0], 1e-300) for b in f.branches]
    small = [b for b, u in zip(f.branches, used, strict=True) if u * WIDE <= 1 and b.ratio >= BAD_RATIO]
    if not small or max(used) * WIDE <= 1:
        return None
    worst = max(small, key=lambda b: b.place.share * b.explained)
    times = max(used) / max(min(used), 1e-300)
    weight = sum(b.place.share * b.explained for b in small)
    return Finding(
        CLASH,
        f.place,
        min(weight, 1.0),
        f"the branches of {f.place.node} share one scale, and {worst.place.tensor} is {times:.3g} times smaller than "
        "the largest: it is left with few steps",
        _cure(f),
        {"times": times, "error_ratio": worst.ratio, "branches": len(f.branches)},
    )


def _drowned(f: JoinFacts) -> Finding | None:
    if f.result_step is None or len(f.powers) < 2 or f.place.op == "Concat":
        return None
    noise = f.result_step**2 / 12
    least, most = min(f.powers), max(f.powers)
    if least <= 0 or math.sqrt(most / least) < LARGER or 10 * math.log10(least / noise) > DROWNED_DB:
        return None
    at = f.powers.index(least)
    name = f.branches[at].place.tensor if at < len(f.branches) else "the smaller branch"
    return Finding(
        CLASH,
        f.place,
        f.place.share,
        f"{name} is {math.sqrt(most / least):.3g} times smaller than what {f.place.node} adds it to, and drowns in the "
        "rounding of the sum",
        _cure(f),
        {"times": math.sqrt(most / least), "above_rounding_db": 10 * math.log10(least / noise)},
    )


def _cure(f: JoinFacts) -> Cure:
    return Cure(
        f"let each branch keep its own scale: quantize them apart, or keep {f.place.node} in float",
        {b.place.tensor: "mse" for b in f.branches},
        exclude=(f.place.node, *f.readers),
    )
