"""The shortest time of many artifacts, in the engine's own process: they take turns, and each call counts alone.

Run as `python -m farrier_converters.pruning.staircase.timer`: a plan as JSON on stdin, one line of JSON per message on
stdout, {"share": 0..1} while it works and {"ns": [...], "engine": "..."} at the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from farrier_contracts.tensors import NUMPY_NAMES

from ...measure.engines import Session, session_type
from .turns import Run, shortest


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
