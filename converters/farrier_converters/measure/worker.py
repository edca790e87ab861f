"""The engine's own process: loads one artifact, runs and times it. A model that aborts takes only this down.

Run as `python -m farrier_converters.measure.worker`; messages come on stdin and go to stdout (see `frames`).
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .engines import Session, session_type
from .frames import Frame, PipeError, receive, send

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc: resets VmHWM


class Worker:
    """What the process knows: the session, and the memory it had before."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._empty_bytes = 0

    def open(self, frame: Frame) -> Frame:
        """Load the engine, note the memory of the empty process, then load the artifact."""
        fields = frame.fields
        engine = session_type(fields["engine"])
        if fields["memory_bytes"]:
            _limit_memory(fields["memory_bytes"])
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text(RESET_PEAK)
        self._empty_bytes = _memory("VmRSS")
        self._session = engine(
            Path(fields["path"]),
            threads=fields["threads"],
            reference=fields["reference"],
            options=fields["options"],
        )
        return Frame({"engine": engine.version, "inputs": [spec.to_dict() for spec in self._session.inputs]})

    def run(self, frame: Frame) -> Frame:
        """Run once and return the outputs."""
        return Frame({}, self._loaded().run(frame.arrays))

    def time(self, frame: Frame) -> Frame:
        """Run `calls` times; returns each call's nanoseconds and the processor time of all."""
        session, feeds = self._loaded(), frame.arrays
        samples = np.empty(frame.fields["calls"], np.int64)
        cpu = time.process_time_ns()
        for i in range(len(samples)):
            start = time.perf_counter_ns()
            session.run(feeds)
            samples[i] = time.perf_counter_ns() - start
        return Frame({"cpu_ns": time.process_time_ns() - cpu}, {"ns": samples})

    def peak(self, frame: Frame) -> Frame:
        """Return the peak of resident memory over that of the empty process, in bytes."""
        return Frame({"bytes": max(0, _memory("VmHWM") - self._empty_bytes)})

    def _loaded(self) -> Session:
        if self._session is None:
            raise PipeError("nothing was opened yet")
        return self._session


def _limit_memory(limit_bytes: int) -> None:
    # RLIMIT_DATA counts what is really private to the process; the address space of an engine is far larger.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def _memory(field: str) -> int:
    try:
        for line in STATUS.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) << 10
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(source: int, sink: int) -> None:
    """Answer messages until the other side closes the pipe."""
    worker = Worker()
    operations: Mapping[str, Callable[[Frame], Frame]] = {
        "open": worker.open,
        "run": worker.run,
        "time": worker.time,
        "peak": worker.peak,
    }
    while True:
        try:
            frame = receive(source)
        except PipeError:
            return
        try:
            answer = operations[frame.fields["op"]](frame)
            send(sink, answer)
        except Exception as error:
            send(sink, Frame({"error": _sentence(error)}))


def _sentence(error: Exception) -> str:
    lines: list[Any] = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:500] if lines else type(error).__name__


if __name__ == "__main__":
    # Engines print: their words go to stderr, so that only messages travel on the pipe.
    source, sink = os.dup(0), os.dup(1)
    os.dup2(2, 1)
    with contextlib.suppress(KeyboardInterrupt):
        serve(source, sink)
