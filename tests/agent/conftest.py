"""A real broker, a small collector that stores and acknowledges as the fleet's does, and whole agents."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cbor2
import paho.mqtt.client as mqtt
import pytest

from farrier_contracts.bundle import Artifact, Golden, Manifest, build
from farrier_contracts.tensors import TensorSpec
from farrier_contracts.wire import payload, telemetry, topics
from farrier_contracts.wire.documents import Desired, WantedDeployment
from farrier_contracts.wire.topics import Topic


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


LIMIT_S = 60
LIFE = "--- life"  # a line of the log


def scale_bundle(
    folder: Path,
    version: str,
    *,
    factor: float,
    golden_factor: float | None = None,
    engine: str = "onnxruntime",
    options: dict[str, Any] | None = None,
) -> Path:
    """y = factor * x, with a golden case that agrees unless `golden_factor` says otherwise."""
    import numpy as np
    from onnx import TensorProto, helper

    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Mul", ["x", "k"], ["y"])],
            "scale",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
            [helper.make_tensor("k", TensorProto.FLOAT, [], [factor])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    golden = io.BytesIO()
    x = np.ones((1, 1, 2), np.float32)
    np.savez(golden, **{"in.x": x, "out.y": x * (golden_factor or factor)})
    manifest = Manifest(
        name="scale",
        version=version,
        inputs=(TensorSpec("x", "FP32", (-1, 2)),),
        outputs=(TensorSpec("y", "FP32", (-1, 2)),),
        artifacts=(Artifact("model.onnx", "onnx", engine, "fp32", "host", options or {}),),
        golden=Golden("golden.npz", {"y": 1e-5}),
    )
    path = folder / f"scale-{version}.farrier"
    build(path, manifest, {"model.onnx": model.SerializeToString(), "golden.npz": golden.getvalue()})
    return path


@dataclass
class Agent:
    """One `farrier-agent run`, over as many lives as the test wants."""

    folder: Path
    config: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def process(self) -> subprocess.Popen[str]:
        return self.processes[-1]

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    @property
    def last_life(self) -> str:
        return self.log.rpartition(LIFE)[2]

    def start(self, **environment: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"{LIFE} {len(self.processes) + 1}\n")
            log.flush()
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "farrier_agent", "run", "--config", str(self.config)],
                    stderr=log,
                    text=True,
                    env={**os.environ, **environment},
                )
            )

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(LIMIT_S)


@dataclass
class World:
    """An agent, its repository and what the fleet says."""

    agent: Agent
    repo: Path
    collector: Any
    eventually: Callable[..., Any]
    version: int = 0

    def publish(self, version: str, **how: Any) -> None:
        from farrier import repo

        repo.publish(scale_bundle(self.agent.folder, version, **how), repo=self.repo)

    def want(self, *deployments: WantedDeployment) -> None:
        self.version += 1
        desired = Desired(self.version, deployments).to_document()
        self.collector.publish(Topic("demo", "edge-1", "desired"), desired)

    def phase(self, name: str, version: str, phase: str) -> dict:
        def reached() -> dict | None:
            found = self.collector.deployment(name)
            return found if (found.get("version"), found.get("phase")) == (version, phase) else None

        return self.eventually(reached, what=f"{name} {version} {phase}:\n{self.agent.log}")

    @staticmethod
    def ask(endpoint: str, name: str, value: float = 2.0) -> float:
        body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [value, value]}]}
        request = urllib.request.Request(
            f"{endpoint}/v2/models/{name}/infer",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.loads(response.read())["outputs"][0]["data"][0]

    @staticmethod
    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False


@pytest.fixture
def world(tmp_path: Path, mosquitto: Any, collector: Any, eventually: Callable[..., Any]) -> Iterator[World]:
    repo = pytest.importorskip("farrier.repo", reason="the host's package publishes the bundles")

    made = repo.init(tmp_path / "repo")
    config = tmp_path / "agent.toml"
    config.write_text(
        f"""
        device = "edge-1"
        fleet = "demo"
        state_dir = "state"
        [broker]
        url = "{mosquitto.url}"
        [repository]
        url = "{made.public}"
        root = "{made.root}"
        [telemetry]
        interval_s = 0.1
        batch_wait_s = 0.1
        [worker]
        hang_limit_s = 2
        """
    )
    agent = Agent(tmp_path, config)
    yield World(agent, tmp_path / "repo", collector, eventually)
    for process in agent.processes:
        process.kill()
        process.wait()
