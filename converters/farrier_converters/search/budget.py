"""The budget: what a delivered model may cost, and how people write it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from farrier_contracts.errors import UsageError

_NUMBER = r"(\d+(?:\.\d+)?)"
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_BYTES = {
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}


@dataclass(frozen=True)
class Budget:
    """The limits; None is no limit. `max_drop` is in points for scores, relative for errors (0.01 = 1 %)."""

    max_drop: float = 0.01
    max_latency_ms: float | None = None
    max_size_bytes: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise UsageError(
                    f"{name.replace('_', ' ')} must be a finite number of at least 0, not {value}"
                )


def parse_drop(text: str) -> float:
    """Read "1%" (or the same as a share, "0.01"); raises UsageError."""
    match = re.fullmatch(rf"{_NUMBER}\s*(%?)", text.strip())
    if match is None:
        raise UsageError(f"a drop is written like 1% or 0.01, not {text!r}")
    value = float(match[1]) / (100 if match[2] else 1)
    if value > 1:
        raise UsageError(f"a drop of {text!r} is more than everything; write {text.strip()}% for percent")
    return value


def parse_latency(text: str) -> float:
    """Read "8ms", "500us" or "1.5s" as milliseconds; raises UsageError."""
    return _quantity(text, _MILLISECONDS, what="a latency", example="8ms")


def parse_size(text: str) -> int:
    """Read "4MB" (powers of 1000) or "4MiB" (of 1024) as bytes; raises UsageError."""
    return int(_quantity(text, _BYTES, what="a size", example="4MB"))


def _quantity(text: str, units: dict[str, float] | dict[str, int], *, what: str, example: str) -> float:
    match = re.fullmatch(rf"{_NUMBER}\s*([a-zµ]+)", text.strip().lower())
    if match is None or match[2] not in units:
        raise UsageError(f"{what} is written like {example} (units: {', '.join(units)}), not {text!r}")
    value = float(match[1]) * units[match[2]]
    if value <= 0:
        raise UsageError(f"{what} must be more than nothing, not {text!r}")
    return value
