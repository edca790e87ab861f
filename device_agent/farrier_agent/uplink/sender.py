"""From the spool to the wire: one window per stream of each boot."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional, Tuple

from farrier_contracts.wire import telemetry
from farrier_contracts.wire.topics import Topic

from ..config import Telemetry
from ..spool import Spool, StreamSpool
from ..spool.spool import Boot, read_clock
from . import rules
from .messages import pack_batch

Key = Tuple[str, str]  # boot and stream


class Sender:
    """Sends what the fleet has not acknowledged, this run's points first."""

    def __init__(
        self,
        spool: Spool,
        *,
        topic: Callable[[str], Topic],
        telemetry_settings: Telemetry,
        settings: rules.Settings,
    ) -> None:
        """`topic` gives the topic of a stream."""
        self._spool, self._topic = spool, topic
        self._telemetry, self._settings = telemetry_settings, settings
        self._windows: Dict[Key, rules.Window] = {}

    def rewind(self) -> None:
        """Forget what was under way: a new connection."""
        self._windows = {key: rules.rewound(window) for key, window in self._windows.items()}

    def acknowledge(self, boot: str, stream: str, number: int, *, now: float) -> None:
        """Take the fleet's cumulative acknowledgement."""
        key = (boot, stream)
        if key in self._windows:
            self._spool.acknowledge(boot, stream, number)
            known = self._stream(key)
            reached = known.acknowledged if known else number
            self._windows[key] = rules.acknowledged(self._windows[key], reached, now=now)

    def due(self, *, now: float, at_once: bool) -> List[Tuple[str, bytes]]:
        """Return the topics and payloads to publish now."""
        known = {
            (boot.name, name): (boot, s) for boot in self._spool.boots for name, s in boot.streams.items()
        }
        self._windows = {
            key: self._windows.get(key, _window_of(stream)) for key, (_, stream) in known.items()
        }
        messages: List[Tuple[str, bytes]] = []
        for key, (boot, stream) in known.items():
            self._windows[key] = rules.timed_out(self._windows[key], now=now, settings=self._settings)
            while True:
                data = self._next(boot, stream, key, now=now, at_once=at_once)
                if data is None:
                    break
                messages.append((str(self._topic(key[1])), data))
        return messages

    def deadline(self) -> Optional[float]:
        """Return when `due` may have something new without anything else happening."""
        times: List[float] = []
        for window in self._windows.values():
            given_up = rules.ack_deadline(window, self._settings)
            if given_up is not None:
                times.append(given_up)
            if window.waiting_since is not None:
                times.append(window.waiting_since + self._telemetry.batch_wait_s)
        return min(times, default=None)

    def _next(
        self, boot: Boot, stream: StreamSpool, key: Key, *, now: float, at_once: bool
    ) -> Optional[bytes]:
        window, live = self._windows[key], boot is self._spool.current
        room = self._settings.in_flight if live else self._settings.history_in_flight
        first = rules.first_to_send(window, low=stream.low, produced=stream.produced, in_flight=room)
        if first is None:
            return None
        waiting_since = now if window.waiting_since is None else window.waiting_since
        if not rules.full_enough(
            stream.produced - first,
            waited_s=now - waiting_since,
            batch_points=self._telemetry.batch_points,
            batch_wait_s=self._telemetry.batch_wait_s,
            at_once=at_once or not live,
        ):
            self._windows[key] = rules.waiting(window, since=waiting_since)
            return None
        points = stream.read(first, self._telemetry.batch_points)
        if not points or not rules.may_skip(window, wanted=first, found=points[0].seq):
            return None
        clock = read_clock() if live else stream.newest_clock or read_clock()
        batch, data = pack_batch(telemetry.Batch(boot.name, stream.low, clock, tuple(points)))
        self._windows[key] = rules.sent(window, batch.last, now=now)
        return data

    def _stream(self, key: Key) -> Optional[StreamSpool]:
        return next((b.streams.get(key[1]) for b in self._spool.boots if b.name == key[0]), None)


def _window_of(stream: StreamSpool) -> rules.Window:
    return rules.Window(acknowledged=stream.acknowledged, sent=stream.acknowledged)
