"""The agent's side of the wire, driven by the supervisor's loop; it never blocks, and a broker may be away."""

from __future__ import annotations

import random
import socket
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Set, Tuple, Union

from farrier_contracts.errors import InputError
from farrier_contracts.files import write_atomically
from farrier_contracts.wire import topics
from farrier_contracts.wire.documents import Desired, Reported, State
from farrier_contracts.wire.telemetry import SEQ_LIMIT, Statement

from ..config import Config
from ..spool import Spool
from . import rules
from .connection import Connection, Happened
from .events import Events
from .messages import pack, unpack
from .sender import Sender


@dataclass(frozen=True)
class DesiredReceived:
    """The fleet's wish, checked."""

    desired: Desired


@dataclass(frozen=True)
class Command:
    """A command in its first state; answer with `Uplink.answer`."""

    kind: str
    id: str
    arguments: Mapping[str, Any]


Inbound = Union[DesiredReceived, Command]


class Uplink:
    """Presence, documents, events and telemetry of one device."""

    def __init__(
        self,
        config: Config,
        spool: Spool,
        *,
        birth: Mapping[str, Any],
        log: Callable[[str], None],
        wake: Callable[[], None],
        settings: rules.Settings = rules.Settings(),
    ) -> None:
        """Nothing is sent before `step`; `wake` is called from another thread when `step` has something to do."""
        self._config, self._spool, self._birth = config, spool, birth
        self._log, self._wake, self._settings = log, wake, settings
        self._session_file = config.state / "session"
        self._session = _read_number(self._session_file)
        self._connection: Optional[Connection] = None
        self._connected = False
        self._attempts = 0
        self._next_attempt = 0.0
        self._give_up_at = 0.0  # of the connection under way, until the broker has answered
        self._complained = False
        self._ignored: Set[str] = set()
        self._sender = Sender(
            spool,
            topic=lambda stream: self._topic("t", stream),
            telemetry_settings=config.telemetry,
            settings=settings,
        )
        self._reported = Reported(-1)
        self._told: Tuple[Any, float] = (None, 0.0)  # what the last reported state said, and when
        self._reports: Dict[int, FrozenSet[str]] = {}  # message id -> boots that had nothing left to send
        self._events = Events(spool.current.name, limit=settings.events)
        self._closing: Optional[float] = None  # when to stop waiting for acknowledgements
        self._farewell: Optional[FrozenSet[int]] = None  # message ids still to be delivered
        self.settled = False  # whether the fleet has everything of this run

    def check(self) -> None:
        """Raise InputError where the broker's certificate or password files cannot be used."""
        self._prepared().close()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the session."""
        return self._connected

    @property
    def closed(self) -> bool:
        """Whether the farewell is over."""
        return self._closing is not None and self._connection is None

    @property
    def watched(self) -> Optional[Tuple[socket.socket, bool]]:
        """The socket to watch and whether to wait for room to write."""
        connection = self._connection
        if connection is None or connection.socket is None:
            return None
        return connection.socket, connection.wants_write

    def deadline(self) -> float:
        """Return the monotonic second of the next `step`, should nothing happen before."""
        if self._connection is None:
            return self._next_attempt
        if not self._connected:
            return self._give_up_at
        times = [time.monotonic() + self._settings.keepalive_s / 4, self._sender.deadline(), self._closing]
        return min(at for at in times if at is not None)

    def report(self, reported: Reported) -> None:
        """Set what the device does; sent when it differs from before."""
        self._reported = reported

    def tell(self, kind: str, document: Mapping[str, Any]) -> None:
        """Send an event; it is kept, the newest ones first, until the broker has it."""
        self._events.add(str(self._topic("e", kind)), document)

    def answer(self, command: Command, status: str, **details: Any) -> None:
        """Publish a command's next state: executing, successful or failed."""
        if self._connection and self._connected:
            topic = self._topic("cmd", f"{command.kind}/{command.id}")
            try:
                self._publish(topic, {**command.arguments, "status": status, **details})
            except InputError:  # what came in cannot be sent back
                self._publish(topic, {"status": status, **details})

    def step(self, *, readable: bool = False, writable: bool = False) -> List[Inbound]:
        """Do what can be done now and return what the fleet said."""
        now = time.monotonic()
        inbound: List[Inbound] = []
        if self._connection is None and self._closing is None and now >= self._next_attempt:
            self._open(now)
        if self._connection is not None:
            inbound = self._take(self._connection.advance(readable=readable, writable=writable), now)
        if self._connected:
            self._events.send(lambda topic, data: self._send(topic, data, retain=False))
            for topic, data in self._sender.due(now=now, at_once=self._closing is not None):
                self._send(topic, data, retain=False)
            self._report(now)
        elif self._connection is not None and now >= self._give_up_at:
            self._lost("the broker did not answer", now)
        if self._closing is not None:
            self._say_goodbye(now)
        return inbound

    def begin_close(self) -> None:
        """Begin the clean end: send what is left, say offline, leave. Go on calling `step` until `closed`."""
        if self._closing is None:
            self._closing = time.monotonic() + (self._settings.flush_s if self._connected else 0)
            self._sender.rewind()  # there is no time left to wait for acknowledgements that may not come

    def cut(self) -> None:
        """End at once."""
        if self._connection is not None:
            self._connection.close()
        self._connection, self._connected = None, False

    # --- connecting

    def _open(self, now: float) -> None:
        self._session += 1
        try:
            write_atomically(self._session_file, [str(self._session).encode()])
        except OSError:  # a full disk: the number still grows within this run
            self._complain("the session number cannot be saved")
        try:
            self._connection = self._prepared()
        except InputError as error:
            self._lost(str(error), now)
            return
        self._give_up_at = now + self._settings.connect_limit_s * 2 + self._settings.connack_limit_s
        self._connection.open()

    def _prepared(self) -> Connection:
        config = self._config
        return Connection(
            config.broker,
            client_id=f"farrier-{config.fleet}-{config.device}",
            will=(str(self._topic("state")), pack(self._state(online=False))),
            settings=self._settings,
            wake=self._wake,
        )

    def _greet(self, now: float) -> None:
        self._connected, self._attempts, self._complained = True, 0, False
        self._log(f"connected to {self._config.broker.url}")
        fleet, device = self._config.fleet, self._config.device
        if self._connection is not None:
            self._connection.subscribe(
                [topics.subscription(fleet, kind, device=device) for kind in ("desired", "ack", "cmd")]
            )
        self._publish(self._topic("state"), self._state(online=True))
        self._publish(self._topic("birth"), self._birth)
        self._sender.rewind()
        self._told, self._reports = (None, 0.0), {}
        self._events.rewind()

    def _lost(self, why: str, now: float) -> None:
        self.cut()
        self._attempts += 1
        self._next_attempt = now + rules.reconnect_delay(
            self._attempts, chance=random.random(), settings=self._settings
        )
        if self._closing is None:
            self._complain(f"the broker {self._config.broker.url} cannot be used: {why}; trying again")

    def _complain(self, sentence: str) -> None:
        if not self._complained:
            self._log(sentence)
            self._complained = True

    # --- what happened

    def _take(self, happened: Happened, now: float) -> List[Inbound]:
        if happened.connected:
            self._greet(now)
        for mid in happened.delivered:
            self._delivered(mid)
        found = [self._read(topic, data, now) for topic, data in happened.messages]
        if happened.ended:
            self._lost(happened.ended, now)
        return [message for message in found if message is not None]

    def _delivered(self, mid: int) -> None:
        self._events.delivered(mid)
        sent_all = self._reports.pop(mid, frozenset())
        for boot in self._spool.old:
            if boot.name in sent_all:
                self._spool.forget(boot)
        if self._farewell is not None:
            self._farewell -= {mid}

    def _read(self, text: str, data: bytes, now: float) -> Optional[Inbound]:
        topic = topics.parse(text)
        if topic is None or not data:
            return None
        try:
            document = unpack(data)
            if topic.kind == "desired":
                return DesiredReceived(Desired.from_document(document))
            if not isinstance(document, dict):
                raise InputError("a message must be an object")
            if topic.kind == "ack":
                self._acknowledged(topic.detail, document, now)
            elif topic.kind == "cmd" and document.get("status") == "init":
                kind, _, number = topic.detail.partition("/")
                return Command(kind, number, {k: v for k, v in document.items() if isinstance(k, str)})
        except InputError as error:
            if topic.kind not in self._ignored:  # once each: a flood must not fill the log
                self._ignored.add(topic.kind)
                self._log(f"a message on {text} is ignored: {error}")
        return None

    def _acknowledged(self, stream: str, document: Mapping[Any, Any], now: float) -> None:
        boot, number = document.get("boot"), document.get("seq")
        if not isinstance(boot, str) or type(number) is not int or not 0 <= number < SEQ_LIMIT:
            raise InputError("an acknowledgement is wrong")
        self._sender.acknowledge(boot, stream, number, now=now)

    # --- sending

    def _report(self, now: float, *, final: bool = False) -> int:
        statements = self._statements()
        empty = frozenset(boot.name for boot in self._spool.old if boot.empty)
        ledger = tuple((s.boot, s.stream, s.dropped) for s in statements)
        says = (self._reported.desired_version, self._reported.deployments, ledger, empty)
        if not final and says == self._told[0] and now < self._told[1] + self._settings.statement_interval_s:
            return 0
        self._told = (says, now)
        stated = {(s.boot, s.stream) for s in statements}
        complete = frozenset(
            boot.name
            for boot in self._spool.old
            if boot.name in empty and stated >= {(s.boot, s.stream) for s in boot.statements() if s.produced}
        )
        document = replace(self._reported, statements=statements).to_document()
        mid = self._publish(self._topic("reported"), document)
        self._reports[mid] = complete
        return mid

    def _statements(self) -> Tuple[Statement, ...]:
        boots = [self._spool.current, *self._spool.old]
        found, room = [], self._settings.statement_ranges
        for statement in (s for boot in boots for s in boot.statements() if s.produced):
            room -= 1 + len(statement.dropped)
            if room >= 0:
                found.append(statement)
        return tuple(found)

    def _say_goodbye(self, now: float) -> None:
        assert self._closing is not None
        if not self._connected:
            self.cut()
        elif self._farewell is None:
            if self._spool.current.empty or now >= self._closing:
                mids = {self._report(now, final=True)}
                mids.add(self._publish(self._topic("state"), self._state(online=False)))
                self._farewell, self._closing = frozenset(mids), now + self._settings.farewell_s
        elif not self._farewell or now >= self._closing:
            self.settled = not self._farewell and self._spool.current.empty
            if self._connection is not None:
                self._connection.leave()
                self._connection.advance(readable=False, writable=True)
            self.cut()

    def _publish(self, topic: topics.Topic, document: Mapping[str, Any]) -> int:
        return self._send(str(topic), pack(document), retain=topic.retained)

    def _send(self, topic: str, data: bytes, *, retain: bool) -> int:
        return self._connection.publish(topic, data, retain=retain) if self._connection else 0

    def _state(self, *, online: bool) -> Mapping[str, Any]:
        return State(online, self._session, self._spool.current.name).to_document()

    def _topic(self, kind: str, detail: str = "") -> topics.Topic:
        return topics.Topic(self._config.fleet, self._config.device, kind, detail)


def _read_number(path: Path) -> int:
    try:
        return max(0, int(path.read_bytes()[:20]))
    except (OSError, ValueError):
        return 0
