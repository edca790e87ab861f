"""What systemd wants to hear (sd_notify(3)): ready, alive, stopping. Silent where there is no systemd."""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Mapping, Optional


class Notifier:
    """Sends to NOTIFY_SOCKET, and `alive` no more often than the watchdog needs."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        period_us = environment.get("WATCHDOG_USEC", "")
        mine = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._period_s = int(period_us) / 1e6 / 2 if period_us.isdigit() and mine else None
        self._next = 0.0

    def ready(self) -> None:
        """Say that the agent has started."""
        self._send("READY=1")

    def stopping(self) -> None:
        """Say that the agent is on its way out."""
        self._send("STOPPING=1")

    def alive(self, now: float) -> None:
        """Say that the agent has made progress at monotonic second `now`."""
        if self._period_s is not None and now >= self._next:
            self._next = now + self._period_s
            self._send("WATCHDOG=1")

    def deadline(self) -> Optional[float]:
        """Return when `alive` is due, None where there is no watchdog."""
        return None if self._period_s is None else self._next

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(text.encode(), address)
