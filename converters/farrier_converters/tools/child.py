"""The tool's side of one call: reads a request on stdin, hands it to a module of `children`, writes the answer.

Imports the standard library alone: only the tool and what it needs are installed where this runs.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import sys
from typing import Any


def answer(envelope: dict[str, Any]) -> dict[str, Any]:
    """Return {"answer": ...}, or {"error": one line} for whatever the tool raises."""
    try:
        module = importlib.import_module(envelope["module"])
        return {"answer": module.answer(envelope["request"])}
    except MemoryError:
        return {"error": "it ran out of the memory that it may use"}
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": lines[0][:500] if lines else type(error).__name__}


def limit(kind: int, value: int) -> None:
    """Lower one of the process's limits, which its own children inherit; 0 is no limit."""
    if value:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (value, value))


def main() -> None:
    """Answer one request."""
    # Tools print: their words go to stderr, so that only the answer travels on the pipe.
    sink = os.dup(1)
    os.dup2(2, 1)
    envelope = json.load(sys.stdin)
    # RLIMIT_DATA counts what is really private to the process; the address space of a compiler is far larger.
    limit(resource.RLIMIT_DATA, envelope["memory_bytes"])
    # Should nobody be left to end it: processor time of every core for as long as it may take.
    limit(resource.RLIMIT_CPU, int(envelope["seconds"]) * (os.cpu_count() or 1))
    said = json.dumps(answer(envelope)).encode()
    with os.fdopen(sink, "wb") as pipe:
        pipe.write(said)


if __name__ == "__main__":
    main()
