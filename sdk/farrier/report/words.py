"""Figures as people read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"


def milliseconds(value: float | None) -> str:
    """Return "12.3 ms" with three digits, or microseconds below a millisecond."""
    if value is None:
        return MISSING
    return f"{_three(value * 1e3)} µs" if value < 1 else f"{_three(value)} ms"


def size(value: float | None) -> str:
    """Return bytes in powers of 1000 with three digits."""
    if value is None:
        return MISSING
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{_three(value)} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1000
    return f"{_three(value)} GB"


def times(value: float | None) -> str:
    """Return a ratio: "2.31x"."""
    return MISSING if value is None else f"{_three(value)}x"


def decibels(noise: float) -> str:
    """Return a share of noise as its distance from the signal: 0.001 is "30.0 dB"."""
    return MISSING if noise <= 0 else f"{-10 * math.log10(noise):.1f} dB"


def metric(value: float | None, *, relative: bool) -> str:
    """Return a score as a percentage, an error as it is."""
    if value is None:
        return MISSING
    return f"{value:.4g}" if relative else f"{value:.2%}"


def drop(value: float | None, *, relative: bool) -> str:
    """Return a drop in points of 100 for scores (a gain has a plus), in percent of the original for errors."""
    if value is None:
        return MISSING
    shown = round(value * 100, 2) + 0.0
    if shown == 0:
        return "0"
    text = f"{abs(shown):.2f}".rstrip("0").rstrip(".")
    if relative:  # a sign would say whether the error grew, or whether the model got better
        return f"{text} % {'worse' if shown > 0 else 'better'}"
    return f"{'-' if shown > 0 else '+'}{text} pt"


def verdict(document: Mapping[str, Any]) -> str:
    """Return the one sentence that says what was decided."""
    delivered, baseline = document["delivered"], document["baseline"]
    if delivered["name"] == baseline["name"]:
        return "The original model is delivered: no candidate within the budget is faster, or as fast and smaller."
    relative = document["metric"]["relative"]
    change = drop(document["drop"], relative=relative)
    shown = "unchanged" if change == "0" else change
    if delivered.get("stand_in"):
        return (
            f"{delivered['name']} is delivered for {delivered['engine']}: {times(document['shrink'])} smaller, "
            f"{document['metric']['name']} {shown} ({metric(delivered['metric']['value'], relative=relative)}), "
            f"answered by {delivered['stand_in']} here; how fast it is shows on the device."
        )
    return (
        f"{delivered['name']} is delivered: {times(document['speedup'])} as fast as the original, "
        f"{times(document['shrink'])} smaller, {document['metric']['name']} {shown} "
        f"({metric(delivered['metric']['value'], relative=relative)})."
    )


def _three(value: float) -> str:
    """Return three significant digits without an exponent."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
