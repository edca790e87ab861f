"""Child processes that live no longer than the block that started them."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from farrier_contracts.errors import FarrierError

STOP_LIMIT_S = 15.0
POLL_S = 0.02
LOG_TAIL_BYTES = 2000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class Child:
    """One running program, its log file, and the name that messages use."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Return the last lines of what it said."""
        return self.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()


@dataclass
class ProcessGroup:
    """Starts programs with their output in log files; leaving the block stops them all, the newest first."""

    folder: Path
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, arguments: Sequence[str]) -> Child:
        """Start a Python module of this environment: `arguments` follow `python -m`."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C on the terminal is ours to hand on, in the right order
                preexec_fn=_die_with_parent if _LIBC else None,  # noqa: PLW1509 - one system call, nothing else
            )
        child = Child(name, process, log)
        self.children.append(child)
        return child

    def wait_until(self, ready: Callable[[], bool], *, what: str, limit_s: float) -> None:
        """Wait for a condition while every child lives; raises FarrierError with the guilty child's last words."""
        deadline = time.monotonic() + limit_s
        while not ready():
            for child in self.children:
                if child.process.poll() is not None:
                    raise FarrierError(
                        f"{child.name} stopped while {what}: {child.tail() or 'it said nothing'}"
                    )
            if time.monotonic() > deadline:
                raise FarrierError(f"{what} took longer than {limit_s:g} s; the logs are in {self.folder}")
            time.sleep(POLL_S)

    def stop(self, children: Sequence[Child]) -> None:
        """Ask children to end, together; whoever has not ended within STOP_LIMIT_S is killed."""
        for child in children:
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_LIMIT_S
        for child in children:
            try:
                child.process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            if child in self.children:
                self.children.remove(child)

    def __enter__(self) -> ProcessGroup:
        """Return the group itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # stopping is bounded; a second Ctrl-C must not cut it short
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.stop(list(reversed(self.children)))
        finally:
            signal.signal(signal.SIGINT, previous)


def _die_with_parent() -> None:
    if _LIBC:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
