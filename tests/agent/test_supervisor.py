"""The whole agent against a real broker and a real repository: every process is its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from farrier_contracts.wire.documents import WantedDeployment
from farrier_contracts.wire.topics import Topic

ONE = WantedDeployment("doubler", "scale", "1")


def test_the_road_from_wish_to_telemetry(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.eventually(lambda: world.collector.documents.get("birth", {}).get("arch"))
    world.want(ONE)
    live = world.phase("doubler", "1", "live")
    assert [world.ask(live["endpoint"], "doubler", v) for v in (1.0, 2.0, 3.0)] == [2.0, 4.0, 6.0]

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
    assert world.ask(live["endpoint"], "doubler", 1.0) == 10.0
    world.eventually(lambda: len(world.agent.children()) == 1, what="the old worker to leave")
    assert [k for k, _ in world.collector.events] == ["swap", "swap"]

    assert world.agent.stop() == 0
    world.eventually(lambda: world.collector.documents["state"]["online"] is False)
    assert world.collector.deployment("doubler")["phase"] == "stopped"
    assert set(world.collector.missing().values()) == {0}
    assert sum(world.collector.values("inference.requests{doubler}")) == 4
    assert list((world.agent.folder / "state" / "spool").iterdir()) == []


def test_a_bad_release_leaves_the_good_one_live(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=3.0, golden_factor=4.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    world.want(WantedDeployment("doubler", "scale", "2"))
    failed = world.phase("doubler", "2", "failed")
    assert "golden" in failed["detail"]
    assert failed["endpoint"] == endpoint
    assert world.ask(endpoint, "doubler", 1.0) == 2.0
    world.want(WantedDeployment("doubler", "scale", "77"))
    assert "77" in world.phase("doubler", "77", "failed")["detail"]
    assert world.ask(endpoint, "doubler", 1.0) == 2.0
    world.want()
    world.eventually(lambda: not world.collector.documents["reported"]["deployments"])
    with pytest.raises((urllib.error.URLError, ConnectionError)):
        world.ask(endpoint, "doubler")


def test_workers_that_die_or_hang_come_back(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    for number in (signal.SIGKILL, signal.SIGSTOP):
        assert world.ask(endpoint, "doubler", 1.0) == 2.0
        (worker,) = world.agent.children()
        os.kill(worker, number)
        world.eventually(lambda pid=worker: pid not in world.agent.children())
        assert (
            world.ask(endpoint, "doubler", 1.0) == 2.0
        )  # the socket never closed: the request waits for the next
    world.eventually(lambda: sum(world.collector.values("inference.requests{doubler}")) == 4)
    assert [k for k, _ in world.collector.events].count("crash") == 2


def test_kill_9_leaves_no_process_and_loses_no_point(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    world.collector.deaf = True
    world.ask(endpoint, "doubler")
    world.eventually(lambda: len(world.collector.values("system.memory.usage")) > 5)
    workers = world.agent.children()
    world.agent.process.kill()
    world.agent.process.wait()
    world.eventually(lambda: not any(map(world.alive, workers)), what="the worker to end")
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
    assert world.ask(again["endpoint"], "doubler", 1.0) == 2.0
    assert world.agent.stop() == 0
    assert set(world.collector.missing().values()) == {0}


def test_a_damaged_part_of_the_only_good_bundle_is_fetched_again(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    assert world.agent.stop() == 0
    parts = list((world.agent.folder / "state" / "store" / "parts").iterdir())
    for part in parts:
        whole = part.read_bytes()
        part.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    world.agent.start()
    world.eventually(lambda: "damaged" in world.agent.last_life, what="the damage to be seen")
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    world.eventually(lambda: world.agent.last_life.count("loaded in") == 1, what="the mended bundle to load")
    assert world.ask(endpoint, "doubler", 1.0) == 2.0


def test_it_boots_and_serves_without_broker_and_repository(
    world: Any, mosquitto: Any, free_port: Any
) -> None:
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
            return world.ask(f"http://127.0.0.1:{port}", "doubler", 4.0) == 8.0
        return False

    world.eventually(answered, what="an offline start")
    assert "cannot be used: connection refused; trying again" in world.agent.log
    assert world.agent.stop() == 0


def test_a_port_in_use_fails_one_deployment_only(world: Any) -> None:
    world.publish("1", factor=2.0)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        world.agent.start()
        world.want(ONE, WantedDeployment("blocked", "scale", "1", port))
        assert f"port {port} cannot be used" in world.phase("blocked", "1", "failed")["detail"]
        assert world.ask(world.phase("doubler", "1", "live")["endpoint"], "doubler", 1.0) == 2.0


def test_a_swap_under_load_drops_and_confuses_nothing(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=10.0)
    world.agent.start()
    world.want(ONE)
    endpoint = world.phase("doubler", "1", "live")["endpoint"]
    answers: list[float] = []
    done = threading.Event()

    def load() -> None:
        while not done.is_set():
            answers.append(world.ask(endpoint, "doubler", 1.0))

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
    assert world.ask(endpoint, "doubler", 1.0) == 10.0
    assert world.agent.stop() == 0
    assert sum(world.collector.values("inference.requests{doubler}")) == len(answers) + 1
    assert sum(world.collector.values("inference.errors{doubler}")) == 0


def test_a_crash_loop_falls_back(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.publish("2", factor=10.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    world.want(WantedDeployment("doubler", "scale", "2"))
    endpoint = world.phase("doubler", "2", "live")["endpoint"]
    world.eventually(lambda: len(world.agent.children()) == 1)
    for _ in range(3):
        world.eventually(lambda: world.ask(endpoint, "doubler", 1.0) == 10.0)
        (worker,) = world.agent.children()
        os.kill(worker, signal.SIGKILL)
        world.eventually(lambda pid=worker: world.agent.children() not in ([], [pid]))
    world.eventually(lambda: world.ask(endpoint, "doubler", 1.0) == 2.0)
    failed = world.phase("doubler", "2", "failed")
    assert "back to scale 1" in failed["detail"]
    world.eventually(lambda: [k for k, _ in world.collector.events].count("rollback") == 1)
    world.agent.stop()
    world.agent.start()  # and it stays so
    again = world.phase("doubler", "2", "failed")
    world.eventually(lambda: world.collector.deployment("doubler")["endpoint"])
    assert world.ask(world.collector.deployment("doubler")["endpoint"], "doubler", 1.0) == 2.0
    assert "ended 3 times" in again["detail"]


def test_ctrl_c_twice_ends_at_once(world: Any) -> None:
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(ONE)
    world.phase("doubler", "1", "live")
    (worker,) = world.agent.children()
    os.kill(worker, signal.SIGSTOP)  # it will not drain
    world.agent.process.send_signal(signal.SIGINT)
    world.eventually(lambda: "stopping" in world.agent.log)
    world.agent.process.send_signal(signal.SIGINT)
    assert world.agent.process.wait(60) == 0
    assert not world.alive(worker)


def test_systemd_hears_ready_alive_and_stopping(world: Any) -> None:
    path = world.agent.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(path))
        heard.settimeout(60)
        world.agent.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="200000")
        assert heard.recv(100) == b"READY=1"
        assert heard.recv(100) == b"WATCHDOG=1"
        assert heard.recv(100) == b"WATCHDOG=1"
        world.agent.process.terminate()
        while (text := heard.recv(100)) != b"STOPPING=1":
            assert text == b"WATCHDOG=1"
        assert world.agent.process.wait(60) == 0


def test_a_restart_command(world: Any) -> None:
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


def answer(world: Any, topic: Topic) -> dict:
    return world.collector.documents.get(topic.detail, {})
