"""Bundles on their way into the store: one short-lived child process at a time, so that this one never loads TUF."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Deque, List, Optional, Tuple

from ..config import Repository
from .slots import Event, Fetched, FetchFailed, Release
from .workers import tethered

REFUSED = 2  # exit codes of `python -m farrier_agent.updates fetch`
ANSWER_MAX_BYTES = 64 << 10
FETCH_LIMIT_S = 3600.0


@dataclass
class _Running:
    name: str
    release: Release
    process: subprocess.Popen[bytes]
    stdout: IO[bytes]
    stderr: IO[bytes]
    until: float


class Fetches:
    """Fetches releases for slots, in the order asked."""

    def __init__(self, repository: Repository, state: Path) -> None:
        """Bundles go to `state`/store, trusted metadata to `state`/trust."""
        self._repository, self._state = repository, state
        self._queue: Deque[Tuple[str, Release]] = deque()
        self._running: Optional[_Running] = None
        self._unstarted: List[Tuple[str, Event]] = []

    def ask(self, name: str, release: Release, *, now: float) -> None:
        """Fetch a release for a slot; an earlier one of the same slot that still waits is forgotten."""
        self._queue = deque((n, r) for n, r in self._queue if n != name)
        self._queue.append((name, release))
        self._start(now)

    def finished(self, *, now: float) -> Optional[Tuple[str, Event]]:
        """Return the slot and the event of a fetch that has ended, None where there is none."""
        if self._unstarted:
            return self._unstarted.pop()
        running = self._running
        if running is None:
            return None
        code = running.process.poll()
        if code is None:
            if now >= running.until:
                running.process.kill()
            return None
        self._running = None
        event = _outcome(running, code)
        running.stdout.close()
        running.stderr.close()
        self._start(now)
        return running.name, event

    def close(self) -> None:
        """End what is under way; what was fetched so far stays."""
        self._queue.clear()
        running, self._running = self._running, None
        if running is not None:
            running.process.kill()
            running.process.wait()
            running.stdout.close()
            running.stderr.close()

    def _start(self, now: float) -> None:
        if self._running is not None or not self._queue:
            return
        name, release = self._queue.popleft()
        try:
            self._running = self._spawn(name, release, now)
        except OSError as error:
            self._unstarted.append(
                (name, FetchFailed(release, f"the fetch cannot start: {error}", for_good=False))
            )

    def _spawn(self, name: str, release: Release, now: float) -> _Running:
        command = tethered(
            "farrier_agent.updates",
            "fetch",
            *("--repository", self._repository.url, "--root", self._repository.root),
            *("--trust", str(self._state / "trust"), "--store", str(self._state / "store")),
            *("--bundle", release.bundle, "--version", release.version),
        )
        stdout = tempfile.TemporaryFile(dir=self._state)  # noqa: SIM115 - closed when the fetch has ended
        stderr = tempfile.TemporaryFile(dir=self._state)  # noqa: SIM115
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        return _Running(name, release, process, stdout, stderr, now + FETCH_LIMIT_S)


def _outcome(running: _Running, code: int) -> Event:
    running.stdout.seek(0)
    running.stderr.seek(0)
    lines = running.stderr.read(ANSWER_MAX_BYTES).decode(errors="replace").strip().splitlines()
    trouble = lines[-1] if lines else f"the fetch ended with code {code}"
    if code == 0:
        try:
            digest = json.loads(running.stdout.read(ANSWER_MAX_BYTES))["digest"]
            return Fetched(running.release, str(digest))
        except (ValueError, KeyError, TypeError):
            trouble = "the fetch gave no answer"
    return FetchFailed(running.release, trouble[:500], for_good=code == REFUSED)
