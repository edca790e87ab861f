"""The collector: messages in from a broker, a durable commit, acknowledgements out."""

from __future__ import annotations

import fcntl
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import FarrierError, InputError
from farrier_contracts.wire import topics

from ..store import Store, open_store, store_file
from .connection import CONNECT_TIMEOUT_S, Broker, await_listener, connect, new_client, parse_broker
from .intake import KINDS, Arrival, read
from .publishing import publish
from .writer import Effects, Writer

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

REASONS_MAX = 64  # why messages were dropped, each counted apart
GOODBYE_POLL_S = 0.01


@dataclass(frozen=True)
class Settings:
    """The collector's limits."""

    queue_messages: int = 4096  # held in memory at most; beyond, the socket is not read
    commit_messages: int = 512  # per transaction at most
    commit_wait_s: float = 0.02  # how long to gather messages for one transaction
    retry_s: float = 2.0  # pause before trying again when the store takes nothing
    poll_s: float = 0.2  # how soon a stop is noticed
    goodbye_s: float = 2.0  # for the last acknowledgements to leave
    connect_timeout_s: float = CONNECT_TIMEOUT_S


@dataclass(frozen=True)
class Summary:
    """What a collector did until it was stopped."""

    messages: int
    points: int
    duplicates: int
    events: int
    rejected: int


@dataclass(frozen=True)
class _Delivery:
    """One message as it came, or (topic "") the news that the broker accepted us."""

    topic: str
    payload: bytes = b""
    received_ns: int = 0
    retained: bool = False
    message_id: int | None = None  # to confirm to the broker after the commit


def collect(
    broker: str,
    store: str,
    *,
    fleet: str | None = None,
    settings: Settings = Settings(),
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Summary:
    """Store what a fleet (or every fleet on the broker) sends, until `stop` is set; return what was done.

    `say` is given one sentence whenever something a person should know happens. Raises FarrierError where the
    broker cannot be reached within `settings.connect_timeout_s`; a broker that is lost later is tried for ever.
    """
    address = parse_broker(broker)
    if fleet is not None:
        topics.checked_id(fleet, "a fleet's name")
    if not store_file(store).exists():  # no new store for a broker that is not there
        await_listener(address, timeout_s=settings.connect_timeout_s)
    with open_store(store) as opened, _alone(opened):
        collector = _Collector(opened, fleet=fleet, settings=settings, say=say)
        return collector.run(address, stop or threading.Event())


class _Collector:
    """One connection, one queue, one writer. The queue is all that the two threads share."""

    def __init__(
        self, store: Store, *, fleet: str | None, settings: Settings, say: Callable[[str], None]
    ) -> None:
        self._store = store
        self._fleet = fleet
        self._settings = settings
        self._say = say
        self._writer = Writer(store)
        self._queue: queue.Queue[_Delivery] = queue.Queue(settings.queue_messages)
        self._rejected: Counter[str] = Counter()
        self._stop = threading.Event()
        self._answered = threading.Event()  # the broker has accepted or refused the first connection
        self._refusal = ""

    def run(self, broker: Broker, stop: threading.Event) -> Summary:
        self._stop = stop
        client = self._client(broker)
        connect(client, broker, timeout_s=self._settings.connect_timeout_s)
        client.loop_start()
        try:
            self._await_answer(broker)
            while not stop.is_set():
                self._commit(client, self._gather(self._settings.poll_s))
            while not self._queue.empty():  # what came before the stop
                self._commit(client, self._gather(0))
        finally:
            self._leave(client)
        counts = self._writer.counts
        return Summary(
            messages=counts["messages"],
            points=counts["points"],
            duplicates=counts["duplicates"],
            events=counts["events"],
            rejected=sum(self._rejected.values()),
        )

    # on the network's thread

    def _client(self, broker: Broker) -> Client:
        # The session outlives the connection, so that the broker keeps events for us. Telemetry needs no keeping
        # (QoS 0 on this leg): a device sends again whatever the store has not acknowledged.
        name = f"farrier-collect-{self._store.identity}"
        client = new_client(broker, name, clean_session=False, manual_ack=True)

        def on_connect(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                self._refuse(broker, str(reason))
                return
            fleet = self._fleet or "+"
            client.subscribe([(topics.subscription(fleet, kind), 0 if kind == "t" else 1) for kind in KINDS])
            self._say(f"connected to {broker}")
            self._answered.set()
            self._put(_Delivery(""))

        def on_disconnect(client: Client, userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
            if self._answered.is_set() and not self._refusal and not self._stop.is_set():
                self._say(f"lost the broker {broker} ({reason}); trying again")

        def on_message(client: Client, userdata: Any, message: MQTTMessage) -> None:
            durable = message.qos > 0 and not message.retain
            if message.qos > 0 and not durable:  # retained: the broker replays it on every connection
                client.ack(message.mid, message.qos)
            number = message.mid if durable else None
            self._put(
                _Delivery(message.topic, bytes(message.payload), time.time_ns(), message.retain, number)
            )

        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_message = on_message
        return client

    def _refuse(self, broker: Broker, reason: str) -> None:
        if self._answered.is_set():  # it was accepted before: whoever changed that may change it back
            self._say(f"the broker {broker} refuses the collector ({reason}); trying again")
        else:
            self._refusal = reason
            self._answered.set()

    def _put(self, delivery: _Delivery) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(delivery, timeout=self._settings.poll_s)
                return
            except queue.Full:
                continue  # not reading the socket is the back-pressure

    # on the writer's thread

    def _await_answer(self, broker: Broker) -> None:
        deadline = time.monotonic() + self._settings.connect_timeout_s
        while not self._answered.wait(self._settings.poll_s) and not self._stop.is_set():
            if time.monotonic() > deadline:
                raise FarrierError(f"the broker {broker} does not answer; see whether it is an MQTT broker")
        if self._refusal:
            raise FarrierError(
                f"the broker {broker} refuses the collector ({self._refusal}); "
                "give a user and password as mqtt://user:password@host"
            )

    def _gather(self, wait_s: float) -> list[_Delivery]:
        try:
            gathered = [self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait()]
        except queue.Empty:
            return []
        deadline = time.monotonic() + self._settings.commit_wait_s
        while len(gathered) < self._settings.commit_messages:
            try:
                gathered.append(self._queue.get(timeout=max(deadline - time.monotonic(), 0)))
            except queue.Empty:
                break
        return gathered

    def _commit(self, client: Client, deliveries: list[_Delivery]) -> None:
        if not deliveries:
            return
        arrivals = [arrival for arrival in map(self._read, deliveries) if arrival is not None]
        effects = self._write(arrivals) if arrivals else Effects()
        if effects is None:
            return  # stopped while the store took nothing: nothing is confirmed, everything will be sent again
        if any(not delivery.topic for delivery in deliveries):
            self._publish(client, self._writer.all_desired(fleet=self._fleet))
        self._publish(client, effects)
        for delivery in deliveries:
            if delivery.message_id is not None:
                client.ack(delivery.message_id, 1)

    def _read(self, delivery: _Delivery) -> Arrival | None:
        if not delivery.topic:
            return None
        try:
            return read(
                delivery.topic,
                delivery.payload,
                received_ns=delivery.received_ns,
                retained=delivery.retained,
            )
        except InputError as error:
            self._reject(str(error), delivery.topic)
            return None

    def _write(self, arrivals: list[Arrival]) -> Effects | None:
        troubled = False
        while True:
            try:
                effects, refused = self._writer.write(arrivals)
            except sqlite3.OperationalError as error:
                if not troubled:
                    self._say(_trouble(self._store, error))
                troubled = True
                if self._stop.wait(self._settings.retry_s):
                    return None
                continue
            if troubled:
                self._say("the store takes data again")
            for reason in refused:
                self._reject(reason, "a message")
            return effects

    def _publish(self, client: Client, effects: Effects) -> None:
        if not client.is_connected():
            return  # devices ask again, and a new connection starts with every desired state
        for (topic, boot), seq in effects.acks.items():
            publish(client, topic, {"boot": boot, "seq": seq})
        for topic, desired in effects.desired.items():
            publish(client, topic, desired.to_document())

    def _reject(self, reason: str, topic: str) -> None:
        if reason not in self._rejected and len(self._rejected) >= REASONS_MAX:
            reason = "for yet another reason"
        self._rejected[reason] += 1
        if self._rejected[reason] == 1:
            self._say(f"a message was dropped: {reason} ({topic!r:.120}); more of this kind are only counted")

    def _leave(self, client: Client) -> None:
        deadline = time.monotonic() + self._settings.goodbye_s
        while client.is_connected() and client.want_write() and time.monotonic() < deadline:
            time.sleep(GOODBYE_POLL_S)
        client.disconnect()
        client.loop_stop()


@contextmanager
def _alone(store: Store) -> Iterator[None]:
    # Two collectors on one store would share an MQTT session, and each would throw the other out for ever.
    path = store.path.with_name(store.path.name + ".collector")
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FarrierError(
                f"another collector is writing to {store.path}; stop it or give another --store"
            ) from None
        yield


def _trouble(store: Store, error: sqlite3.OperationalError) -> str:
    if "full" in str(error):
        return f"the disk is full, nothing more can be stored in {store.path}; free some space, devices keep their data"
    return f"the store {store.path} takes nothing ({error}); trying again, devices keep their data"
