"""Worker processes as the supervisor sees them: started, led over a control socket, and reaped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..stats import Snapshot, Stats
from .measures import NOTHING, difference

LINE_MAX_BYTES = 64 << 10
REASON_MAX = 500  # characters of a worker's sentence


@dataclass(frozen=True)
class Order:
    """How to start one worker. `settings` is the JSON object of its limits."""

    store: Path
    digest: str
    name: str
    listen_fds: Tuple[int, ...]
    stats: Path
    engines: Path
    settings: Dict[str, Any]


class WorkerProcess:
    """One worker: its process, the control socket and its counters."""

    def __init__(self, order: Order) -> None:
        """Start it; raises OSError where the process or its files cannot be made."""
        self._stats_path = order.stats
        self._stats: Optional[Stats] = Stats.create(order.stats)
        self._seen = NOTHING
        self._buffer = b""
        self._reason = ""
        ours, theirs = socket.socketpair()
        with theirs:
            arguments = [
                *("--store", str(order.store), "--digest", order.digest, "--name", order.name),
                *("--listen-fd", ",".join(map(str, order.listen_fds)), "--control-fd", str(theirs.fileno())),
                *("--stats", str(order.stats), "--engines", str(order.engines)),
                *("--settings", json.dumps(order.settings)),
            ]
            try:
                self._process = subprocess.Popen(
                    tethered("farrier_agent.worker", *arguments),
                    stdin=subprocess.DEVNULL,
                    stdout=sys.stderr.fileno(),
                    pass_fds=[*order.listen_fds, theirs.fileno()],
                )
            except OSError:
                ours.close()
                self._close_stats()
                raise
        ours.setblocking(False)
        self.control = ours

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def send(self, **message: Any) -> None:
        """Give an order; a worker that is gone does not hear it."""
        with contextlib.suppress(OSError):
            self.control.send(json.dumps(message).encode() + b"\n")

    def receive(self) -> Tuple[List[Dict[str, Any]], bool]:
        """Return what the worker said since the last call, and whether the control socket is still open."""
        is_open = True
        try:
            data = self.control.recv(LINE_MAX_BYTES)
            is_open = bool(data)
            self._buffer += data
        except BlockingIOError:
            pass
        except OSError:
            is_open = False
        *lines, self._buffer = self._buffer.split(b"\n")
        self._buffer = self._buffer[:LINE_MAX_BYTES]
        messages = []
        for line in lines:
            with contextlib.suppress(ValueError):
                message = json.loads(line)
                if isinstance(message, dict):
                    messages.append(message)
                    if message.get("event") == "failed":
                        self._reason = str(message.get("reason", ""))[:REASON_MAX]
        return messages, is_open

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def ended(self) -> Optional[str]:
        """Return why the process has ended, None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        self.receive()  # its last words
        if self._reason:
            return self._reason
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"the worker was ended by {signal.Signals(-code).name}"
        return f"the worker ended with code {code}"

    def heartbeat(self) -> int:
        """Return the counter that stands still in a hang."""
        return self._stats.read().heartbeat if self._stats else 0

    def take(self) -> Snapshot:
        """Return what was counted since the last call."""
        if self._stats is None:
            return NOTHING
        now = self._stats.read()
        counted, self._seen = difference(now, self._seen), now
        return counted

    def close(self) -> None:
        """Let go of an ended process."""
        self._process.wait()
        self.control.close()
        self._close_stats()

    def _close_stats(self) -> None:
        if self._stats is not None:
            self._stats.close()
            self._stats = None
        self._stats_path.unlink(missing_ok=True)


def tethered(module: str, *arguments: str) -> List[str]:
    """Return the command that runs a module in a process which dies with this one."""
    return [sys.executable, "-m", "farrier_agent.tether", str(os.getpid()), module, *arguments]
