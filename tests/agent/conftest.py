"""A real broker, and a small collector that stores and acknowledges as the fleet's does."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cbor2
import paho.mqtt.client as mqtt
import pytest

from farrier_contracts.wire import payload, telemetry, topics


class Mosquitto:
    """A broker on a loopback port that stays the same over `kill` and `start`."""

    def __init__(self, folder: Path, binary: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"mqtt://127.0.0.1:{self.port}"
        self._binary = binary
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, eventually: Callable[..., object]) -> None:
        self._process = subprocess.Popen(
            [self._binary, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        eventually(self._answers, what="mosquitto to listen")

    def kill(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Collector:
    """Keeps every point once, acknowledges after that, and remembers all else that the devices say."""

    def __init__(self, port: int) -> None:
        self.lock = threading.Lock()
        self.port = port
        self.points: dict[tuple[str, str], dict[int, dict]] = {}  # (boot, stream) -> number -> values
        self.acknowledged: dict[tuple[str, str], int] = {}
        self.documents: dict[str, dict] = {}  # kind -> newest document
        self.states: list[dict] = []
        self.statements: dict[tuple[str, str], telemetry.Statement] = {}
        self.events: list[tuple[str, dict]] = []
        self.deaf = False  # does not acknowledge
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="collector")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("farrier/v1/#", qos=1)
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def publish(self, topic: topics.Topic, document: object) -> None:
        body = b"" if document is None else payload.seal(cbor2.dumps(document))
        self._client.publish(str(topic), body, qos=1, retain=topic.retained)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def missing(self) -> dict[tuple[str, str], int]:
        """Per stated stream, how many produced points are neither stored nor stated as dropped."""
        with self.lock:
            result = {}
            for key, statement in self.statements.items():
                dropped = {n for first, last in statement.dropped for n in range(first, last + 1)}
                result[key] = len(set(range(statement.produced)) - set(self.points.get(key, ())) - dropped)
            return result

    def values(self, name: str) -> list[float]:
        with self.lock:
            return [v[name] for points in self.points.values() for v in points.values() if name in v]

    def deployment(self, name: str) -> dict:
        found = self.documents.get("reported", {}).get("deployments", [])
        return next((d for d in found if d["name"] == name), {})

    def _on_message(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        if topic is None or not message.payload or topic.kind in ("ack", "desired"):
            return
        document = cbor2.loads(payload.unseal(message.payload))
        with self.lock:
            if topic.kind == "t":
                self._store(topic, telemetry.from_document(document))
            elif topic.kind == "e":
                self.events.append((topic.detail, document))
            else:
                self.documents[topic.kind if topic.kind != "cmd" else topic.detail] = document
            if topic.kind == "state":
                self.states.append(document)
            if topic.kind == "reported":
                for item in document["telemetry"]:
                    statement = telemetry.Statement.from_document(item)
                    self.statements[statement.boot, statement.stream] = statement

    def _store(self, topic: topics.Topic, batch: telemetry.Batch) -> None:
        key = (batch.boot, topic.detail)
        stored = self.points.setdefault(key, {})
        for point in batch.points:
            assert stored.setdefault(point.seq, dict(point.values)) == dict(point.values)
        reached = telemetry.advance(self.acknowledged.get(key, -1), batch.first, batch.last, batch.low)
        self.acknowledged[key] = reached
        if reached >= 0 and not self.deaf:
            ack = topics.Topic(topic.fleet, topic.device, "ack", topic.detail)
            self.publish(ack, {"boot": batch.boot, "seq": reached})


@pytest.fixture
def mosquitto(tmp_path: Path, eventually: Callable[..., object]) -> Iterator[Mosquitto]:
    """A running mosquitto; `kill()` and `start(eventually)` restart it on the same port without its memory."""
    binary = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    if binary is None:
        pytest.skip("mosquitto is not installed")
    broker = Mosquitto(tmp_path, binary)
    broker.start(eventually)
    yield broker
    broker.kill()


@pytest.fixture
def collector(mosquitto: Mosquitto) -> Iterator[Collector]:
    """A collector connected to that broker."""
    made = Collector(mosquitto.port)
    yield made
    made.close()
