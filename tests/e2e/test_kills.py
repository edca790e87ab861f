"""kill -9 at random moments of the demo's scene: received + ledgered = produced, and everything goes on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from farrier import bundle
from farrier.client import Client, InferenceError
from farrier.processes import Child, ProcessGroup
from farrier.showcase.load import Driver
from farrier.showcase.play import ASSETS
from farrier.showcase.scene import DEPLOYMENT, FLEET, Scene
from farrier.store import balance, devices, open_store
from farrier_agent.spool import Spool

pytest.importorskip("amqtt", reason="the embedded broker needs amqtt")

DEVICES = ["edge-1", "edge-2"]
SEEDS = range(20)
VICTIMS = ("worker", "supervisor", "collector", "broker")
LONGEST_PAUSE_S = 1.5
RECOVERY_S = 90.0


@dataclass
class Play:
    """A running scene, and what the killed supervisors' spools held: numbers produced by (device, boot, stream)."""

    scene: Scene
    truth: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def child(self, name: str) -> Child:
        return next(child for child in self.scene.group.children if child.name == name)

    def kill(self, name: str) -> None:
        child = self.child(name)
        self.scene.group.children.remove(child)
        child.process.kill()
        child.process.wait()

    def remember_spool(self, device: str, copy: Path) -> None:
        """Read from the disk of a dead supervisor what it had produced, on a copy."""
        shutil.copytree(self.scene.folder / device / "state" / "spool", copy)
        spool = Spool(copy, boot="f" * 16, max_bytes=1 << 30)
        for boot in spool.old:
            for statement in boot.statements():
                key = (device, statement.boot, statement.stream)
                self.truth[key] = max(statement.produced, self.truth.get(key, 0))
        spool.close()


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    with tempfile.TemporaryDirectory(prefix="f-") as name, ProcessGroup(Path(name)) as group:
        scene = Scene(Path(name), group, telemetry_interval_s=0.1)
        made = Path(name) / "digits.farrier"
        bundle.build(ASSETS / "digits.onnx", name=DEPLOYMENT, version="1.0.0", target="host", output=made)
        scene.prepare(made)
        scene.roll_out(f"{DEPLOYMENT}@1.0.0", DEVICES)
        yield Play(scene)


def workers(supervisor: int) -> list[int]:
    """The worker processes of one agent."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return [
        int(pid) for pid in children if b"farrier_agent.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def kill(play: Play, victim: str, device: str, folder: Path, eventually: Callable[..., object]) -> None:
    scene = play.scene
    if victim == "worker":
        supervisor = play.child(device).process.pid
        eventually(lambda: workers(supervisor), what="a worker lives")
        for pid in workers(supervisor):
            os.kill(pid, signal.SIGKILL)
    elif victim == "supervisor":
        play.kill(device)
        play.remember_spool(device, folder / "spool")
        scene.start_agent(device)
    elif victim == "collector":
        play.kill("collector")
        scene.start_collector()
    else:
        play.kill("broker")
        scene.start_broker()


def answers(play: Play, device: str, images: np.ndarray) -> bool:
    """Say whether a device's deployment is live and answers."""
    running = play.scene.deployment(device)
    if running is None or running.phase != "live":
        return False
    try:
        with Client(running.endpoint) as client:
            return client.infer(DEPLOYMENT, {"image": images[:2]}).outputs["logits"].shape == (2, 10)
    except InferenceError:
        return False


def accounts(scene: Scene) -> dict[tuple[str, str, str], tuple[int | None, int, int]]:
    with open_store(scene.store_url) as store:
        return {
            (each.name, account.boot, account.stream): (account.produced, account.received, account.ledgered)
            for each in devices(store, fleet=FLEET)
            for account in balance(store, each.id)
        }


@pytest.mark.parametrize("seed", SEEDS)
def test_a_kill_loses_nothing(
    seed: int, play: Play, tmp_path: Path, eventually: Callable[..., object]
) -> None:
    rng = random.Random(seed)
    victim, device = VICTIMS[seed % len(VICTIMS)], rng.choice(DEVICES)
    with np.load(ASSETS / "digits-eval.npz") as data:
        images, labels = data["image"], data["labels"]
    running = play.scene.wait_live(DEVICES)
    drivers = [Driver(d.endpoint, DEPLOYMENT, images, labels, seed=seed) for d in running]
    for driver in drivers:
        driver.start()
    try:
        threading.Event().wait(rng.uniform(0, LONGEST_PAUSE_S))  # the random moment
        kill(play, victim, device, tmp_path, eventually)
        eventually(
            lambda: all(answers(play, each, images) for each in DEVICES),
            limit_s=RECOVERY_S,
            what=f"both devices answer after the {victim} was killed",
        )
    finally:
        for driver in drivers:
            driver.stop()
    before = received(play.scene)
    eventually(
        lambda: all(now > before[each] for each, now in received(play.scene).items()),
        limit_s=RECOVERY_S,
        what="telemetry of both devices flows again",
    )
    eventually(
        lambda: all(stated_and_stored(play, key) for key in play.truth),
        limit_s=RECOVERY_S,
        what="what a killed supervisor had spooled is in the store",
    )
    eventually(lambda: play.scene.totals().missing == 0, limit_s=RECOVERY_S, what="nothing is missing")


def received(scene: Scene) -> dict[str, int]:
    """Points stored by device."""
    found = accounts(scene)
    return {
        name: sum(stored for (device, _, _), (_, stored, _) in found.items() if device == name)
        for name in DEVICES
    }


def stated_and_stored(play: Play, key: tuple[str, str, str]) -> bool:
    produced, received, ledgered = accounts(play.scene).get(key, (None, 0, 0))
    return produced == play.truth[key] == received + ledgered


def test_at_rest_every_account_is_balanced(play: Play, eventually: Callable[..., object]) -> None:
    """Runs last: after all kills, agents stop cleanly, and the sums close with nothing lost."""
    agents = [play.child(device) for device in DEVICES]
    play.scene.group.stop(agents)
    assert [agent.process.returncode for agent in agents] == [0, 0]
    eventually(lambda: play.scene.settled(at_rest=True), limit_s=RECOVERY_S, what="all accounts settle")
    found = accounts(play.scene)
    assert len({boot for _, boot, _ in found}) >= len(DEVICES) + len(SEEDS) // len(VICTIMS)
    for key, (produced, received, ledgered) in found.items():
        assert produced == received + ledgered, key
        assert ledgered == 0, f"{key}: no budget was exceeded, so nothing may be lost"
    for key, produced in play.truth.items():
        assert found[key][0] == produced
