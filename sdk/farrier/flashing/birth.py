"""Wait on the fleet's broker until a device is born: the sign that an agent started and reached it."""

from __future__ import annotations

import json
import secrets
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import FarrierError, InputError
from farrier_contracts.wire import payload, topics
from farrier_contracts.wire.documents import State

from ..collector import connect, new_client
from ..fleet import Fleet

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

CONNECT_LIMIT_S = 10
RETAINED_WAIT_S = 1.0  # how long the broker gets to hand over what it keeps of a device


@dataclass(frozen=True)
class Birth:
    """What an agent said of itself and its device when it appeared; `boot` names this run of it."""

    boot: str
    document: dict[str, Any]


class BirthWatch:
    """A connection to the broker that sees one device's state and birth; a context manager."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._changed = threading.Condition()
        self._connects = 0
        self._device = ""
        self._subscribed = False
        self._old_boot: str | None = None  # None: not armed yet
        self._refused = ""
        self._state: State | None = None
        self._birth: Birth | None = None
        self._client = new_client(fleet.broker, f"flash-{secrets.token_hex(6)}")
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> BirthWatch:
        """Connect; raises FarrierError where the broker cannot be reached or refuses."""
        connect(self._client, self._fleet.broker)
        self._client.loop_start()
        if not self._wait(lambda: self._connects > 0 or self._refused, CONNECT_LIMIT_S) or self._refused:
            self._stop()
            reason = self._refused or f"no answer within {CONNECT_LIMIT_S} s"
            raise FarrierError(f"the fleet's broker {self._fleet.broker} refused the connection: {reason}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        self._stop()

    def look(self, device: str) -> bool:
        """Watch a device from now on; return whether one of this name is online already."""
        self._device = device
        self._subscribe()
        if not self._wait(lambda: self._subscribed, CONNECT_LIMIT_S):
            raise FarrierError(f"the fleet's broker {self._fleet.broker} did not accept a subscription")
        self._wait(lambda: self._state is not None, RETAINED_WAIT_S)
        return self._state is not None and self._state.online

    def arm(self) -> None:
        """From now on a birth is that of the agent about to be started."""
        with self._changed:
            self._old_boot = self._state.boot if self._state else ""

    def birth(self, limit_s: float) -> Birth | None:
        """Return the first birth of another run of the agent than before `arm`, or None when the limit has passed."""
        self._wait(lambda: self._birth is not None, limit_s)
        return self._birth

    def _wait(self, condition: Any, limit_s: float) -> bool:
        with self._changed:
            return bool(self._changed.wait_for(condition, limit_s))

    def _stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self) -> None:
        kinds = ("state", "birth")
        fleet, device = self._fleet.name, self._device
        self._client.subscribe([(topics.subscription(fleet, kind, device=device), 1) for kind in kinds])

    def _on_connect(self, client: Client, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        with self._changed:
            if reason.is_failure:
                self._refused = str(reason).lower()
            else:
                self._connects += 1
                if self._device:
                    self._subscribe()
            self._changed.notify_all()

    def _on_subscribe(self, client: Client, data: Any, mid: int, reasons: list[Any], properties: Any) -> None:
        with self._changed:
            self._subscribed = not any(reason.is_failure for reason in reasons)
            self._changed.notify_all()

    def _on_message(self, client: Client, data: Any, message: MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        document = decode(bytes(message.payload))
        if topic is None or document is None:
            return
        with self._changed:
            try:
                self._take(topic.kind, document, retained=message.retain)
            except InputError:
                return
            self._changed.notify_all()

    def _take(self, kind: str, document: dict[str, Any], *, retained: bool) -> None:
        if kind == "state":
            self._state = State.from_document(document)
        elif kind == "birth" and self._is_new(retained=retained) and self._state is not None:
            self._birth = Birth(self._state.boot, document)

    def _is_new(self, *, retained: bool) -> bool:
        """Say whether a birth is that of the agent just started, whose state came right before it.

        The old agent may greet once more before it is stopped: its boot is known. What the broker kept is older,
        unless this connection was lost and the broker tells what was missed.
        """
        if self._old_boot is None or (retained and self._connects < 2):
            return False
        return self._state is not None and self._state.online and self._state.boot != self._old_boot


def decode(data: bytes) -> dict[str, Any] | None:
    """Return the document in a payload from the wire, or None for anything else."""
    import cbor2

    try:
        body = payload.unseal(data)
        document = json.loads(body) if payload.is_json(body) else cbor2.loads(body)
    except (InputError, ValueError, RecursionError, cbor2.CBORDecodeError):
        return None
    return document if isinstance(document, dict) else None
