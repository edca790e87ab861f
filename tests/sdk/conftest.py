"""Real brokers, a real collector process and a real browser for the fleet's tests."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import pytest

from farrier.collector import connect, new_client, parse_broker
from farrier.store import Store, open_store
from farrier_contracts.wire.documents import Desired, Reported, RunningDeployment, State
from farrier_contracts.wire.payload import seal, unseal
from farrier_contracts.wire.telemetry import Batch, Clock, Point, Statement, to_document
from farrier_contracts.wire.topics import Topic

FARRIER = (sys.executable, "-c", "import sys; from farrier.cli import main; sys.exit(main())")


@pytest.fixture(autouse=True, scope="session")
def base_alone(no_tools: None) -> None:
    """Commands find no heavy tools."""


@pytest.fixture
def mosquitto(start_mosquitto) -> str:
    """The address of a real mosquitto of this test's own."""
    return start_mosquitto()


@pytest.fixture
def embedded(tmp_path: Path, free_port, answers, running, eventually) -> Iterator[str]:
    """The address of the project's own embedded broker."""
    pytest.importorskip("amqtt")
    port = free_port()
    with running(
        sys.executable, "-m", "farrier.broker", "--port", str(port), log=tmp_path / "broker.log"
    ) as process:
        eventually(lambda: process.poll() is not None or answers(port), what="the embedded broker listens")
        assert process.poll() is None
        yield f"mqtt://127.0.0.1:{port}"


@pytest.fixture(params=["mosquitto", "embedded"])
def broker(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    return request.getfixturevalue(request.param)


class FleetDevice:
    """A device as the wire describes it: keeps points until they are acknowledged, and sends again what is not."""

    RESEND_S = 0.5
    WINDOW = 8

    def __init__(
        self, url: str, name: str, *, fleet: str = "demo", boot: str = "boot-1", session: int = 1
    ) -> None:
        self.fleet, self.name, self.boot, self.session = fleet, name, boot, session
        self.points: list[Point] = []
        self.acknowledged, self.sent = -1, -1
        self.progress_at = time.monotonic()
        self.desired: list[Desired] = []
        broker = parse_broker(url)
        self.client = new_client(broker, f"device-{name}")
        self.client.will_set(
            self.topic("state"), self.sealed(State(False, session, boot).to_document()), 1, True
        )
        self.client.on_message = self._on_message
        self.client.on_connect = lambda client, *_: client.subscribe(
            [(self.topic("ack", "inference"), 1), (self.topic("desired"), 1)]
        )
        connect(self.client, broker)
        self.client.loop_start()

    def topic(self, kind: str, detail: str = "") -> str:
        return str(Topic(self.fleet, self.name, kind, detail))

    @staticmethod
    def sealed(document: dict) -> bytes:
        return seal(cbor2.dumps(document))

    def publish(self, kind: str, document: dict, detail: str = "") -> None:
        retained = Topic(self.fleet, self.name, kind, detail).retained
        self.client.publish(self.topic(kind, detail), self.sealed(document), 1, retained).wait_for_publish(20)

    def announce(self, **health: object) -> None:
        self.publish("state", State(True, self.session, self.boot).to_document())
        self.publish("birth", {"agent": "0.1.0", "arch": "x86_64", **health})

    def report(self, version: int, *deployments: RunningDeployment, dropped: tuple = ()) -> None:
        statement = Statement(self.boot, "inference", len(self.points), dropped)
        self.publish("reported", Reported(version, deployments, (statement,)).to_document())

    def produce(self, count: int, values: dict[str, float] | None = None, *, every_ns: int = 10**9) -> None:
        for _ in range(count):
            seq = len(self.points)
            self.points.append(Point(seq, (seq + 1) * every_ns, values or {"inference.requests": float(seq)}))

    def send(self, first: int, last: int, *, low: int | None = None, wall_ns: int | None = None) -> None:
        newest = self.points[-1].mono_ns
        clock = Clock(newest, time.time_ns() if wall_ns is None else wall_ns)
        low = self.acknowledged + 1 if low is None else low
        piece = Batch(self.boot, min(low, first), clock, tuple(self.points[first : last + 1]))
        self.client.publish(self.topic("t", "inference"), self.sealed(to_document(piece)), 1)

    def step(self, size: int = 10) -> bool:
        """Send what may be sent; True once everything is acknowledged."""
        last = len(self.points) - 1
        if time.monotonic() - self.progress_at > self.RESEND_S:
            self.sent, self.progress_at = self.acknowledged, time.monotonic()
        while self.sent < last and self.sent - self.acknowledged < self.WINDOW * size:
            self.send(self.sent + 1, min(self.sent + size, last))
            self.sent = min(self.sent + size, last)
        return self.acknowledged == last

    def _on_message(self, client, userdata, message) -> None:
        if not message.payload:
            return  # someone made the broker forget
        document = cbor2.loads(unseal(message.payload))
        if message.topic.endswith("/desired"):
            self.desired.append(Desired.from_document(document))
        elif (
            "/ack/" in message.topic and document["boot"] == self.boot and document["seq"] > self.acknowledged
        ):
            self.acknowledged, self.progress_at = document["seq"], time.monotonic()

    def die(self) -> None:
        """Lose the connection without a word, so that the broker publishes the will."""
        self.client._sock.shutdown(2)
        self.client.loop_stop()

    def leave(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def new_device() -> Iterator[Callable[..., FleetDevice]]:
    """Make devices that disconnect when the test ends."""
    made: list[FleetDevice] = []

    def make(url: str, name: str, **options) -> FleetDevice:
        made.append(FleetDevice(url, name, **options))
        return made[-1]

    yield make
    for device in made:
        device.leave()


@pytest.fixture
def collector(tmp_path: Path, running) -> Callable[..., object]:
    """A context manager that runs `farrier collect` as a process of its own, on the store fleet.db."""

    def start(url: str, *options: str, store: str | None = None):
        store = store or f"sqlite:///{tmp_path}/fleet.db"
        command = (*FARRIER, "collect", "--broker", url, "--store", store, *options)
        return running(*command, log=tmp_path / "collector.log")

    return start


@pytest.fixture
def fleet_store(tmp_path: Path) -> Iterator[Store]:
    """The collector's store, opened beside it."""
    with open_store(f"sqlite:///{tmp_path}/fleet.db") as opened:
        yield opened
