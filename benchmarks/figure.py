"""How every benchmark ends: one line of JSON that says what was found and whether it holds."""

from __future__ import annotations

import json


def emit(figure: str, value: float, *, goal: float, unit: str, at_most: bool = False) -> None:
    """Print the last line; the figure holds when it is at least (or at most) its goal."""
    holds = value <= goal if at_most else value >= goal
    print(
        json.dumps({"figure": figure, "value": round(value, 4), "goal": goal, "unit": unit, "holds": holds})
    )
