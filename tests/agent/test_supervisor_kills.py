"""Any process killed at any moment: what was produced is stored or in the ledger, and nothing stays behind."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from typing import Any

import pytest

from farrier_contracts.wire.documents import WantedDeployment


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_received_and_ledgered_is_produced(world: Any, mosquitto: Any, seed: int) -> None:
    chance = random.Random(seed)
    world.publish("1", factor=2.0)
    world.agent.start()
    world.want(WantedDeployment("doubler", "scale", "1"))
    world.phase("doubler", "1", "live")
    lives = 1
    for _ in range(5):
        reached = len(world.collector.values("system.memory.usage")) + chance.randrange(6)
        world.eventually(lambda n=reached: len(world.collector.values("system.memory.usage")) >= n)
        victim = chance.choice(["worker", "supervisor", "broker", "deaf"])
        if victim == "worker":
            for pid in world.agent.children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        elif victim == "supervisor":
            world.agent.process.kill()
            world.agent.process.wait()
            world.agent.start()
            lives += 1
        elif victim == "broker":
            mosquitto.kill()
            mosquitto.start(world.eventually)
        world.collector.deaf = victim == "deaf"
    world.collector.deaf = False
    world.eventually(lambda: "connected to" in world.agent.last_life)
    spool = world.agent.folder / "state" / "spool"
    world.eventually(lambda: len(list(spool.iterdir())) == 1, what="earlier boots to be settled")
    world.phase("doubler", "1", "live")
    reached = len(world.collector.values("system.memory.usage")) + 5
    world.eventually(lambda: len(world.collector.values("system.memory.usage")) > reached)
    assert world.agent.stop() == 0
    assert set(world.collector.missing().values()) == {0}
    assert len({boot for boot, _ in world.collector.statements}) <= lives
    assert list(spool.iterdir()) == []
    assert "Traceback" not in world.agent.log
