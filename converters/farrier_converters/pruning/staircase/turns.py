"""Artifacts that take turns, each counted by its shortest call. The standard library alone, Python 3.9: devices run it.

The shortest call of many is what an artifact takes when nothing else runs: a loaded machine lengthens most calls, but
not every one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

Run = Callable[[], object]


def shortest(
    runs: list[Run], *, plan: Mapping[str, Any], tell: Callable[[float], None] = lambda share: None
) -> list[int]:
    """Return the nanoseconds of the shortest call of each, over rounds in which they take turns.

    Rounds end when the times have settled: `settled_rounds` in a row in which hardly any (`still_share` of them) fell
    by more than `settled_by`; there are at least `rounds` and at most `most_rounds`.
    """
    best = []
    for run in runs:
        run()  # the warm-up
        best.append(_once(run))
    quiet = 0
    for turn in range(plan["most_rounds"]):
        fallen = 0
        for index, run in enumerate(runs):
            found = _visit(run, best[index], plan)
            fallen += found < best[index] * (1 - plan["settled_by"])
            best[index] = min(best[index], found)
        quiet = quiet + 1 if fallen <= plan["still_share"] * len(runs) else 0
        tell((turn + 1) / plan["most_rounds"])
        if turn + 1 >= plan["rounds"] and quiet >= plan["settled_rounds"]:
            break
    return best


def _visit(run: Run, best: int, plan: Mapping[str, Any]) -> int:
    """Return the shortest of as many calls in a row as fill a round, and of `min_calls` at least.

    The first ones find the caches full of another network; and how many fill a round is learnt from the best call so
    far, since any other may have been interrupted.
    """
    calls = int(min(max(plan["round_ns"] / max(best, 1), plan["min_calls"]), plan["max_calls"]))
    return min(_once(run) for _ in range(calls))


def _once(run: Run) -> int:
    start = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - start
