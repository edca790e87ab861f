"""The whole agent against a real broker and a real repository: every process is its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from farrier import repo
from farrier_contracts.bundle import Artifact, Golden, Manifest, build
from farrier_contracts.tensors import TensorSpec
from farrier_contracts.wire.documents import Desired, WantedDeployment
from farrier_contracts.wire.topics import Topic

LIMIT_S = 60


def scale_bundle(folder: Path, version: str, *, factor: float, golden_factor: float | None = None) -> Path:
    """y = factor * x, with a golden case that agrees unless `golden_factor` says otherwise."""
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
        artifacts=(Artifact("model.onnx", "onnx", "onnxruntime", "fp32", "host"),),
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

    def start(self, **environment: str) -> None:
        with (self.folder / "log").open("a") as log:
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

    def publish(self, version: str, **how: float) -> None:
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


@pytest.fixture
def world(tmp_path: Path, mosquitto: Any, collector: Any, eventually: Callable[..., Any]) -> Iterator[World]:
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


def ask(endpoint: str, name: str, value: float = 2.0) -> float:
    body = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [value, value]}]}
    request = urllib.request.Request(
        f"{endpoint}/v2/models/{name}/infer", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
        return json.loads(response.read())["outputs"][0]["data"][0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


ONE = WantedDeployment("doubler", "scale", "1")


def test_the_road_from_wish_to_telemetry(world: World) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.eventually(lambda: world.collector.documents.get("birth", {}).get("arch"))
    world.want(ONE)
    live = world.phase("doubler", "1", "live")
    assert [ask(live["endpoint"], "doubler", v) for v in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]

    with socket.socket(socket.AF_UNIX) as local:
        local.connect(str(world.agent.folder / "state" / "run" / "doubler.sock"))
        local.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert local.recv(100).startswith(b"HTTP/1.1 200")

    world.eventually(lambda: sum(world.collector.values("inference.requests{doubler}")) == 3)
    assert all(0 < v < 60 for v in world.collector.values("inference.latency.p99{doubler}"))
    assert world.collector.values("system.memory.usage")
    assert world.collector.values("process.memory.usage")

    world.publish("2", factor=10.0)
    world.want(WantedDeployment("doubler", "scale", "2"))
    assert world.phase("doubler", "2", "live")["endpoint"] == live["endpoint"]
    assert ask(live["endpoint"], "doubler", 1.0) == 10.0
    world.eventually(lambda: len(world.agent.children()) == 1, what="the old worker to leave")
    assert [k for k, _ in world.collector.events] == ["swap", "swap"]

    assert world.agent.stop() == 0
    world.eventually(lambda: world.collector.documents["state"]["online"] is False)
    assert world.collector.deployment("doubler")["phase"] == "stopped"
    assert set(world.collector.missing().values()) == {0}
    assert sum(world.collector.values("inference.requests{doubler}")) == 4
    assert list((world.agent.folder / "state" / "spool").iterdir()) == []


def test_a_bad_release_leaves_the_good_one_live(world: World) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=3.0, golden_factor=4.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    world.want(WantedDeployment("doubler", "scale", "2"))
    failed = world.phase("doubler", "2", "failed")
    assert "golden" in failed["detail"]
    assert failed["endpoint"] == endpoint
    assert ask(endpoint, "doubler", 1.0) == 2.0
    world.want(WantedDeployment("doubler", "scale", "77"))
    assert "77" in world.phase("doubler", "77", "failed")["detail"]
    assert ask(endpoint, "doubler", 1.0) == 2.0
    world.want()
    world.eventually(lambda: not world.collector.documents["reported"]["deployments"])
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        ask(endpoint, "doubler")


def test_workers_that_die_or_hang_come_back(world: World) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    for number in (signal.SIGKILL, signal.SIGSTOP):
        assert ask(endpoint, "doubler", 1.0) == 2.0
        (worker,) = world.agent.children()
        os.kill(worker, number)
        world.eventually(lambda pid=worker: pid not in world.agent.children())
        assert ask(endpoint, "doubler", 1.0) == 2.0  # the socket never closed: the request waits for the next
    world.eventually(lambda: sum(world.collector.values("inference.requests{doubler}")) == 4)
    assert [k for k, _ in world.collector.events].count("crash") == 2


def test_kill_9_leaves_no_process_and_loses_no_point(world: World) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    world.collector.deaf = True
    ask(endpoint, "doubler")
    world.eventually(lambda: len(world.collector.values("system.memory.usage")) > 5)
    workers = world.agent.children()
    world.agent.process.kill()
    world.agent.process.wait()
    world.eventually(lambda: not any(map(alive, workers)), what="the worker to end")
    world.eventually(lambda: world.collector.documents["state"]["online"] is False, what="the last will")
    world.collector.deaf = False
    first_boot = world.collector.documents["state"]["boot"]

    world.agent.start()
    world.eventually(lambda: world.collector.documents["state"]["online"])
    assert world.collector.documents["state"]["session"] == 2
    world.eventually(lambda: (first_boot, "system") in world.collector.statements)
    spool = world.agent.folder / "state" / "spool"
    world.eventually(lambda: len(list(spool.iterdir())) == 1, what="the old boot to be forgotten")
    again = world.phase("doubler", "1", "live")
    assert ask(again["endpoint"], "doubler", 1.0) == 2.0
    assert world.agent.stop() == 0
    assert set(world.collector.missing().values()) == {0}


def test_it_boots_and_serves_without_broker_and_repository(world: World, mosquitto: Any) -> None:
    port = free_port()
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(WantedDeployment("doubler", "scale", "1", port))
    world.phase("doubler", "1", "live")
    assert world.agent.stop() == 0
    mosquitto.kill()
    (world.repo / "public").rename(world.repo / "gone")
    text = world.agent.config.read_text().replace("public/metadata", "gone/metadata")
    world.agent.config.write_text(text)
    world.agent.start()

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return ask(f"http://127.0.0.1:{port}", "doubler", 4.0) == 8.0
        return False

    world.eventually(answered, what="an offline start")
    assert "cannot be used: connection refused; trying again" in world.agent.log
    assert world.agent.stop() == 0


def test_a_port_in_use_fails_one_deployment_only(world: World) -> None:
    world.publish("1", factor=2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        world.agent.start()
        world.want(ONE, WantedDeployment("blocked", "scale", "1", port))
        assert f"port {port} cannot be used" in world.phase("blocked", "1", "failed")["detail"]
        assert ask(world.phase("doubler", "1", "live")["endpoint"], "doubler", 1.0) == 2.0


def test_a_swap_under_load_drops_and_confuses_nothing(world: World) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=10.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    answers: list[float] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answers.append(ask(endpoint, "doubler", 1.0))

    clients = [threading.Thread(target=load) for _ in range(2)]
    for client in clients:
        client.start()
    try:
        for version in ("2", "1", "2"):
            world.want(WantedDeployment("doubler", "scale", version))
            world.phase("doubler", version, "live")
    finally:
        done.set()
        for client in clients:
            client.join()
    assert set(answers) == {2.0, 10.0}
    assert ask(endpoint, "doubler", 1.0) == 10.0
    assert world.agent.stop() == 0
    assert sum(world.collector.values("inference.requests{doubler}")) == len(answers) + 1
    assert sum(world.collector.values("inference.errors{doubler}")) == 0


def test_a_crash_loop_falls_back(world: World) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=10.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    world.want(WantedDeployment("doubler", "scale", "2"))
    endpoint = world.phase("doubler", "2", "live")["endpoint"]
    world.eventually(lambda: len(world.agent.children()) == 1)
    for _ in range(3):
        world.eventually(lambda: ask(endpoint, "doubler", 1.0) == 10.0)
        (worker,) = world.agent.children()
        os.kill(worker, signal.SIGKILL)
        world.eventually(lambda pid=worker: world.agent.children() not in ([], [pid]))
    world.eventually(lambda: ask(endpoint, "doubler", 1.0) == 2.0)
    failed = world.phase("doubler", "2", "failed")
    assert "back to scale 1" in failed["detail"]
    world.eventually(lambda: [k for k, _ in world.collector.events].count("rollback") == 1)
    world.agent.stop()
    world.agent.start()  # and it stays so
    again = world.phase("doubler", "2", "failed")
    world.eventually(lambda: world.collector.deployment("doubler")["endpoint"])
    assert ask(world.collector.deployment("doubler")["endpoint"], "doubler", 1.0) == 2.0
    assert "ended 3 times" in again["detail"]


def test_ctrl_c_twice_ends_at_once(world: World) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    (worker,) = world.agent.children()
    os.kill(worker, signal.SIGSTOP)  # it will not drain
    world.agent.process.send_signal(signal.SIGINT)
    world.eventually(lambda: "stopping" in world.agent.log)
    world.agent.process.send_signal(signal.SIGINT)
    assert world.agent.process.wait(LIMIT_S) == 0
    assert not alive(worker)


def test_systemd_hears_ready_alive_and_stopping(world: World) -> None:
    path = world.agent.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(LIMIT_S)
        world.agent.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000")
        assert heard.recv(100) == b"READY=1"
        assert heard.recv(100) == b"WATCHDOG=1"
        assert heard.recv(100) == b"WATCHDOG=1"
        world.agent.process.terminate()
        while (text := heard.recv(100)) != b"STOPPING=1":
            assert text == b"WATCHDOG=1"
        assert world.agent.process.wait(LIMIT_S) == 0


def test_a_restart_command(world: World) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    (worker,) = world.agent.children()
    for kind, name, status in (("restart", "doubler", "successful"), ("dance", "doubler", "failed")):
        topic = Topic("demo", "edge-1", "cmd", f"{kind}/1")
        world.collector.publish(topic, {"status": "init", "deployment": name})
        world.eventually(lambda t=topic, s=status: answer(world, t).get("status") == s)
    world.eventually(lambda: world.agent.children() and worker not in world.agent.children())


def test_the_supervisor_loads_no_engine() -> None:
    heavy = ("numpy", "onnxruntime", "tuf", "ai_edge_litert", "cryptography", "asyncio")
    code = (
        "import sys, farrier_agent.cli, farrier_agent.supervisor.loop\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def answer(world: World, topic: Topic) -> dict:
    return world.collector.documents.get(topic.detail, {})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
