"""The shortest time of many artifacts, in the engine's own process: they take turns, and each call counts alone.

Run as `python -m farrier_converters.pruning.staircase.timer`: a plan as JSON on stdin, one line of JSON per message on
stdout, {"share": 0..1} while it works and {"ns": [...], "engine": "..."} at the end. The shortest call of many is what
the artifact takes when nothing else runs: a loaded machine lengthens most calls, but not every one.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from farrier_contracts.tensors import NUMPY_NAMES

from ...measure.engines import Session, session_type

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


def _ready(session: Session) -> Run:
    rng = np.random.default_rng(0)
    feeds = {
        spec.name: rng.standard_normal([max(size, 1) for size in spec.shape]).astype(
            NUMPY_NAMES[spec.datatype]
        )
        for spec in session.inputs
    }
    return lambda: session.run(feeds)


def serve(plan: Mapping[str, Any], sink: TextIO) -> None:
    """Carry out a plan: `engine`, `threads`, `artifacts` (each `path` and `options`), and the limits of `shortest`."""

    def say(message: Mapping[str, Any]) -> None:
        print(json.dumps(message), file=sink, flush=True)

    try:
        engine = session_type(plan["engine"])
        sessions = [
            engine(Path(item["path"]), threads=plan["threads"], options=item["options"])
            for item in plan["artifacts"]
        ]
        found = shortest([_ready(s) for s in sessions], plan=plan, tell=lambda share: say({"share": share}))
        say({"ns": found, "engine": engine.version})
    except Exception as error:
        say({"error": next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)})


if __name__ == "__main__":
    # Engines print: their words go to stderr, so that only messages travel on the pipe.
    sink = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(json.load(sys.stdin), sink)
