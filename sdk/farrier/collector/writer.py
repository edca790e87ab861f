"""What each kind of message does to the store, and what must be published once that is committed."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from farrier_contracts.errors import FarrierError
from farrier_contracts.wire.documents import Desired
from farrier_contracts.wire.topics import Topic

from ..store import Store, writing
from ..store.queries import current_desired, devices
from .intake import Arrival, event_time_ns, wall_offset_ns

DESIRED_AGAIN_S = 5.0  # a device that stays behind is told again at most this often


@dataclass
class Effects:
    """What to publish after the commit: acknowledged number by (topic, boot), and desired state by topic."""

    acks: dict[tuple[Topic, str], int] = field(default_factory=dict)
    desired: dict[Topic, Desired] = field(default_factory=dict)


class Writer:
    """Applies messages to the store. Holds when each device was last told its desired state, and counts."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic
        self._told: dict[int, float] = {}
        self.counts: Counter[str] = Counter()

    def write(self, arrivals: Iterable[Arrival]) -> tuple[Effects, list[str]]:
        """Store messages in one transaction; return what to publish, and why single messages were refused.

        Raises sqlite3.Error where nothing could be stored: then nothing was, and the same call may be repeated.
        """
        effects, refused = Effects(), []
        counts: Counter[str] = Counter()
        with self._store.transaction():
            for arrival in arrivals:
                self._store.connection.execute("SAVEPOINT message")
                try:
                    self._apply(arrival, effects, counts)
                except (
                    FarrierError,
                    sqlite3.IntegrityError,
                    sqlite3.DataError,
                    ValueError,
                    OverflowError,
                ) as error:
                    self._store.connection.execute("ROLLBACK TO message")
                    refused.append(str(error))
                self._store.connection.execute("RELEASE message")
        self.counts += counts
        return effects, refused

    def all_desired(self, *, fleet: str | None = None) -> Effects:
        """Return every device's desired state, for a broker that may have lost what it had retained."""
        wanted = {
            Topic(device.fleet, device.name, "desired"): device.desired
            for device in devices(self._store, fleet=fleet)
            if device.desired is not None
        }
        return Effects(desired=wanted)

    def _apply(self, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        topic = arrival.topic
        device = writing.device_id(self._store, topic.fleet, topic.device)
        if not arrival.retained:
            writing.seen(self._store, device, arrival.received_ns)
        counts["messages"] += 1
        _HANDLERS[topic.kind](self, device, arrival, effects, counts)

    def _telemetry(self, device: int, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        batch, topic = arrival.value, arrival.topic
        stream = writing.stream_id(self._store, device, batch.boot, topic.detail)
        offset = wall_offset_ns(batch, arrival.received_ns)
        new, reached = writing.add_batch(self._store, stream, batch, wall_offset_ns=offset)
        counts["points"] += new
        counts["duplicates"] += len(batch.points) - new
        if reached >= 0:
            effects.acks[Topic(topic.fleet, topic.device, "ack", topic.detail), batch.boot] = reached

    def _state(self, device: int, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        if not writing.set_state(self._store, device, arrival.value):
            counts["stale wills"] += 1

    def _birth(self, device: int, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        writing.set_birth(self._store, device, arrival.document)
        if not arrival.retained:
            self._tell(device, arrival.topic, effects)

    def _reported(self, device: int, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        writing.set_reported(self._store, device, arrival.document)
        for statement in arrival.value.statements:
            writing.set_statement(self._store, device, statement)
        desired = current_desired(self._store, device)
        behind = desired is not None and arrival.value.desired_version < desired.version
        if behind and self._monotonic() - self._told.get(device, float("-inf")) >= DESIRED_AGAIN_S:
            self._tell(device, arrival.topic, effects)

    def _event(self, device: int, arrival: Arrival, effects: Effects, counts: Counter[str]) -> None:
        when = event_time_ns(arrival.document, arrival.received_ns)
        kind = arrival.topic.detail
        counts["events"] += writing.add_event(
            self._store, device, kind, wall_ns=when, document=arrival.document
        )

    def _tell(self, device: int, topic: Topic, effects: Effects) -> None:
        desired = current_desired(self._store, device)
        if desired is not None:
            effects.desired[Topic(topic.fleet, topic.device, "desired")] = desired
            self._told[device] = self._monotonic()


_HANDLERS = {
    "t": Writer._telemetry,
    "state": Writer._state,
    "birth": Writer._birth,
    "reported": Writer._reported,
    "e": Writer._event,
}
