"""The supervisor's life: one thread, one selector, from the lock on the state folder to the last farewell."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import selectors
import signal
import socket
import time
from typing import Any, Callable, Optional

from farrier_contracts.errors import InputError
from farrier_contracts.wire.documents import Reported

from ..config import Config
from ..spool import Spool
from ..uplink import Command, Uplink
from . import lock, measures, system
from .deployments import Deployments
from .notify import Notifier

LONGEST_SLEEP_S = 5.0
STATE_FOLDERS = ("store", "trust", "run", "spool", "engines")

Log = Callable[[str], None]


def run(config: Config, *, log: Log) -> int:
    """Run the agent until SIGTERM or SIGINT and return its exit code; a second signal ends it at once.

    Raises InputError where it cannot start.
    """
    if not os.path.isfile(config.repository.root):  # noqa: PTH113 - a plain text from the configuration
        raise InputError(f"the repository's root of trust {config.repository.root} does not exist")
    held = lock.acquire(config.state)
    try:
        for name in STATE_FOLDERS:
            (config.state / name).mkdir(exist_ok=True)
        with _Supervisor(config, log) as supervisor:
            supervisor.live()
    except OSError as error:
        raise InputError(f"the state folder {config.state} cannot be used: {error.strerror}") from None
    finally:
        os.close(held)
    return 0


class _Supervisor:
    def __init__(self, config: Config, log: Log) -> None:
        self._config, self._log = config, log
        self._started = time.monotonic()
        self._signals = 0
        self._draining = False  # workers are on their way out
        self._ending = False  # so is the uplink
        self._selector = selectors.DefaultSelector()
        self._uplink_socket: Optional[socket.socket] = None
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        self._spool = Spool(
            config.state / "spool", boot=secrets.token_hex(8), max_bytes=config.telemetry.spool_max_bytes
        )
        self._uplink = Uplink(config, self._spool, birth=system.birth(), log=log, wake=self._wake)
        self._deployments = Deployments(config, watch=self._watch, tell=self._uplink.tell, log=log)
        self._meter = system.SystemMeter(config.state)
        self._notifier = Notifier()
        self._next_sample = self._started + config.telemetry.interval_s

    def __enter__(self) -> _Supervisor:
        self._watch(self._wake_read, self._woken)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_end)
        return self

    def __exit__(self, *_: object) -> None:
        self._deployments.close()
        self._uplink.cut()
        self._spool.close(settled=self._uplink.settled)
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def live(self) -> None:
        config = self._config
        self._deployments.boot()
        self._uplink.check()  # after the boot: it loads the MQTT library, workers load theirs meanwhile
        self._log(f"device {config.device} of fleet {config.fleet}, boot {self._spool.current.name}")
        self._notifier.ready()
        while not (self._ending and self._uplink.closed) and self._signals < 2:
            readable, writable = self._wait()
            self._turn(readable, writable)
            self._notifier.alive(time.monotonic())
        self._log("stopped")

    def _turn(self, readable: bool, writable: bool) -> None:
        now = time.monotonic()
        if self._signals and not self._draining:
            self._begin_drain()
        self._deployments.turn()
        if now >= self._next_sample:
            self._sample()
            missed = int((now - self._next_sample) / self._config.telemetry.interval_s)
            self._next_sample += (missed + 1) * self._config.telemetry.interval_s
        self._uplink.report(
            Reported(self._deployments.version, self._deployments.reported(), health=self._health(now))
        )
        if self._draining and self._deployments.drained and not self._ending:
            self._ending = True
            self._sample()
            self._next_sample = math.inf  # what is counted after the last statement would be in none
            self._uplink.begin_close()
        inbound = self._uplink.step(readable=readable, writable=writable)
        self._watch_uplink()  # a new worker's socket may get the number of one that was just closed
        for message in inbound:
            if isinstance(message, Command):
                self._obey(message)
            else:
                self._deployments.want(message.desired)

    def _begin_drain(self) -> None:
        self._draining = True
        self._log("stopping: workers finish what they have")
        self._notifier.stopping()
        self._deployments.drain()

    def _obey(self, command: Command) -> None:
        self._uplink.answer(command, "executing")
        if command.kind != "restart":
            self._uplink.answer(command, "failed", reason=f"the command {command.kind!r} is unknown here")
        elif self._deployments.restart(str(command.arguments.get("deployment", ""))):
            self._uplink.answer(command, "successful")
        else:
            self._uplink.answer(command, "failed", reason="no such deployment is live")

    def _sample(self) -> None:
        for point in measures.points(self._deployments.measure()):
            self._spool.append("inference", time.monotonic_ns(), point)
        values = self._meter.read([os.getpid(), *self._deployments.pids])
        values["agent.spool.size"] = self._spool.size
        if self._spool.lost:
            values["agent.spool.lost"] = self._spool.lost
        self._spool.append("system", time.monotonic_ns(), values)

    def _health(self, now: float) -> dict[str, Any]:
        return {
            "uptime_s": round(now - self._started, 1),
            "spool_bytes": self._spool.size,
            "lost": self._spool.lost,
        }

    # --- the loop's own

    def _wait(self) -> tuple[bool, bool]:
        self._watch_uplink()
        now = time.monotonic()
        times = [self._next_sample, self._uplink.deadline(), now + LONGEST_SLEEP_S]
        times += [at for at in (self._deployments.deadline(), self._notifier.deadline()) if at is not None]
        mask = 0
        for key, events in self._selector.select(max(0.0, min(times) - now)):
            if key.data is None:
                mask = events
            else:
                key.data()
        return bool(mask & selectors.EVENT_READ), bool(mask & selectors.EVENT_WRITE)

    def _watch(self, file: Any, callback: Optional[Callable[[], None]]) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)
        if callback is not None:
            self._selector.register(file, selectors.EVENT_READ, callback)

    def _watch_uplink(self) -> None:
        watched = self._uplink.watched
        if self._uplink_socket is not None and (watched is None or watched[0] is not self._uplink_socket):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(self._uplink_socket)
            self._uplink_socket = None
        if watched is None:
            return
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if watched[1] else 0)
        if self._uplink_socket is None:
            self._selector.register(watched[0], events, None)
            self._uplink_socket = watched[0]
        elif self._selector.get_key(watched[0]).events != events:
            self._selector.modify(watched[0], events, None)

    def _asked_to_end(self, *_: object) -> None:
        self._signals += 1

    def _wake(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def _woken(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._wake_read, 4096)
