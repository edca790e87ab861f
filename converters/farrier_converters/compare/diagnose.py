"""From facts to findings: every rule asked, what explains more than one layer first, what explains nothing left out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .causes import Cure, Finding, activation_cause, bias_cause, join_cause, weight_cause, whole_cause
from .causes.model import (
    ACTIVATION_OUTLIER,
    DAMAGED_ZERO_POINT,
    DEAD_RANGE,
    SATURATION,
    SENSITIVE,
    WEIGHT_OUTLIER,
)
from .facts import Facts
from .probe import decibels

LEAST_WEIGHT = 0.02  # a cause that explains less of the loss is not worth a line
WORTH_A_CAUSE_DB = 25.0  # outputs nearer to the float ones need no layer to blame
MOST_SENSITIVE = 3
RANGES = (SATURATION, DEAD_RANGE, DAMAGED_ZERO_POINT, ACTIVATION_OUTLIER)


def diagnose(facts: Facts) -> list[Finding]:
    """Return the findings, the most important first."""
    joins = [f for f in map(join_cause, facts.joins()) if f is not None]
    ranges = [f for f in map(activation_cause, facts.activations.values()) if f is not None]
    clashing = {name for f in joins for name in f.cure.methods}
    ranges = [f for f in ranges if f.cause != DEAD_RANGE or f.place.tensor not in clashing]
    whole = None if joins else whole_cause(list(facts.activations.values()))
    if whole is not None and whole.weight >= LEAST_WEIGHT:
        ranges = [f for f in ranges if f.cause not in RANGES]
    weights = [f for f in map(weight_cause, facts.weights()) if f is not None]
    weights, ranges = _roots(weights, ranges)
    found = [
        *([whole] if whole is not None else []),
        *joins,
        *ranges,
        *weights,
        *(f for f in map(bias_cause, facts.biases()) if f is not None),
    ]
    found = [f for f in found if f.weight >= LEAST_WEIGHT]
    found.sort(key=lambda f: -f.weight)
    return found or list(_sensitive(facts))


def _roots(weights: list[Finding], ranges: list[Finding]) -> tuple[list[Finding], list[Finding]]:
    """Let a channel that stands out in weights and results of one layer be one finding: the weights make it."""
    results = {(f.place.tensor, f.numbers.get("channel")): f for f in ranges if f.cause == ACTIVATION_OUTLIER}
    merged, explained = [], []
    for f in weights:
        result = results.get((f.place.tensor, f.numbers.get("channel")))
        if f.cause == WEIGHT_OUTLIER and result is not None:
            explained.append(result)
            merged.append(replace(f, weight=min(f.weight + result.weight, 1.0)))
        else:
            merged.append(f)
    return merged, [f for f in ranges if f not in explained]


def output_db(facts: Facts) -> float:
    """Return the signal-to-noise ratio of the outputs, the worst of them."""
    names = {spec.name for spec in facts.probed.a.outputs}
    sums = [s for name, s in facts.probed.sums.items() if name in names]
    return min((decibels(s.signal, s.error) for s in sums), default=decibels(1, 0))


def _sensitive(facts: Facts) -> Iterable[Finding]:
    if output_db(facts) >= WORTH_A_CAUSE_DB:
        return
    names = sorted(facts.shares, key=lambda n: -facts.shares[n])[:MOST_SENSITIVE]
    for name in names:
        place = facts.place(facts.by_name[name])
        sums = facts.probed.sums[name]
        own = decibels(sums.signal, sums.own)
        if place.share < LEAST_WEIGHT or not place.node:
            continue
        yield Finding(
            SENSITIVE,
            place,
            place.share,
            f"nothing is wrong with the quantizers of {place.node}, but it makes {place.share:.0%} of the loss "
            f"(its own error is at {own:.0f} dB)",
            Cure(f"keep {place.node} in float, or give it more bits", exclude=(place.node,)),
            {"own_snr_db": own},
        )
