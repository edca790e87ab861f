from __future__ import annotations

import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from farrier_agent.config import Broker, Config, Repository, Telemetry
from farrier_agent.spool import Spool
from farrier_agent.uplink import Command, DesiredReceived, Uplink
from farrier_agent.uplink.rules import Settings
from farrier_contracts.errors import InputError
from farrier_contracts.wire.documents import Desired, Reported, RunningDeployment, WantedDeployment
from farrier_contracts.wire.topics import Topic

QUICK = Settings(reconnect_first_s=0.1, reconnect_max_s=0.2, ack_first_s=0.3, ack_max_s=0.5)


class Device:
    """An uplink with a loop of its own, in a thread."""

    def __init__(self, state: Path, url: str, *, boot: str) -> None:
        self.config = Config(
            "edge-1",
            "demo",
            str(state),
            Broker(url),
            Repository("http://127.0.0.1:9", "root.json"),
            telemetry=Telemetry(batch_points=8, batch_wait_s=0.02),
        )
        state.mkdir(exist_ok=True)
        self.logged: list[str] = []
        self.inbound: list[Any] = []
        self.lock = threading.Lock()
        self.spool = Spool(state / "spool", boot=boot, max_bytes=1 << 20)
        self.uplink = Uplink(
            self.config,
            self.spool,
            birth={"agent": "test"},
            log=self.logged.append,
            wake=lambda: None,
            settings=QUICK,
        )
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def append(self, count: int) -> None:
        with self.lock:
            for _ in range(count):
                number = self.spool.current.streams["inference"].produced
                self.spool.append("inference", number, {"n": number})

    def kill(self) -> None:
        """What kill -9 leaves: no farewell, nothing written."""
        self.stop.set()
        self.thread.join()
        self.uplink.cut()
        self.spool.close()

    def close(self) -> None:
        with self.lock:
            self.uplink.begin_close()
        self.thread.join()
        self.spool.close(settled=self.uplink.settled)

    def _run(self) -> None:
        while not self.stop.is_set() and not self.uplink.closed:
            with self.lock:
                watched = self.uplink.watched
            readable = writable = False
            if watched:
                r, w, _ = select.select([watched[0]], [watched[0]] if watched[1] else [], [], 0.01)
                readable, writable = bool(r), bool(w)
            else:
                self.stop.wait(0.01)
            with self.lock:
                self.inbound += self.uplink.step(readable=readable, writable=writable)


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[Callable[..., Device]]:
    made: list[Device] = []

    def make(url: str, *, boot: str = "boot-1") -> Device:
        made.append(Device(tmp_path / "state", url, boot=boot))
        return made[-1]

    yield make
    for device in made:
        device.stop.set()
        device.thread.join()
        device.uplink.cut()
        device.spool.close()


def live(version: str = "1") -> Reported:
    return Reported(3, (RunningDeployment("d", "digits", version, "", "live"),))


def test_presence_documents_and_events(devices: Any, mosquitto: Any, collector: Any, eventually: Any) -> None:
    device = devices(mosquitto.url)
    eventually(lambda: collector.documents.get("state") == {"online": True, "session": 1, "boot": "boot-1"})
    eventually(lambda: collector.documents.get("birth") == {"agent": "test"})
    with device.lock:
        device.uplink.report(live())
        device.uplink.tell("swap", {"deployment": "d", "detail": "digits 1 is live"})
    eventually(lambda: collector.deployment("d").get("phase") == "live")
    eventually(lambda: [(k, e["deployment"]) for k, e in collector.events] == [("swap", "d")])

    desired = Desired(7, (WantedDeployment("d", "digits", "2"),))
    collector.publish(Topic("demo", "edge-1", "desired"), desired.to_document())
    eventually(lambda: DesiredReceived(desired) in device.inbound)
    collector.publish(Topic("demo", "edge-1", "cmd", "restart/c1"), {"status": "init", "deployment": "d"})
    command = Command("restart", "c1", {"status": "init", "deployment": "d"})
    eventually(lambda: command in device.inbound)
    with device.lock:
        device.uplink.answer(command, "successful")
    eventually(lambda: collector.documents.get("restart/c1", {}).get("status") == "successful")
    collector.publish(Topic("demo", "edge-1", "desired"), {"version": "x"})
    eventually(lambda: any("desired" in line and "ignored" in line for line in device.logged))

    device.append(5)
    device.close()
    eventually(lambda: collector.states[-1] == {"online": False, "session": 1, "boot": "boot-1"})
    assert collector.statements["boot-1", "inference"].produced == 5
    assert collector.missing() == {("boot-1", "inference"): 0}
    assert device.uplink.settled
    assert list((device.config.state / "spool").iterdir()) == []


def test_a_device_that_vanishes_is_declared_offline(
    devices: Any, mosquitto: Any, collector: Any, eventually: Any
) -> None:
    device = devices(mosquitto.url)
    eventually(lambda: collector.states and collector.states[-1]["online"])
    device.kill()
    eventually(lambda: collector.states[-1] == {"online": False, "session": 1, "boot": "boot-1"})


def test_a_broker_that_dies_loses_nothing(
    devices: Any, mosquitto: Any, collector: Any, eventually: Any
) -> None:
    device = devices(mosquitto.url)
    device.append(20)
    eventually(lambda: len(collector.values("n")) >= 10)
    mosquitto.kill()
    device.append(300)
    eventually(lambda: not device.uplink.connected)
    with device.lock:
        device.uplink.tell("crash", {"deployment": "d", "detail": "while away"})
    assert sum("cannot be used" in line for line in device.logged) == 1
    mosquitto.start(eventually)
    device.append(20)
    eventually(lambda: sorted(set(collector.values("n"))) == list(range(340)))
    eventually(lambda: not device.uplink._events, what="the broker to take the event")
    assert collector.documents["state"]["session"] > 1


def test_a_deaf_collector_gets_the_points_again(
    devices: Any, mosquitto: Any, collector: Any, eventually: Any
) -> None:
    collector.deaf = True
    device = devices(mosquitto.url)
    device.append(200)
    eventually(lambda: len(collector.values("n")) >= 32)  # four batches of eight, then it waits
    assert device.spool.current.streams["inference"].acknowledged == -1
    assert len(collector.values("n")) == 32
    collector.deaf = False
    eventually(lambda: device.spool.current.empty)
    assert sorted(collector.values("n")) == list(range(200))


def test_an_earlier_boot_is_drained_stated_and_forgotten(
    devices: Any, mosquitto: Any, collector: Any, eventually: Any
) -> None:
    collector.deaf = True
    first = devices(mosquitto.url)
    first.append(100)
    eventually(lambda: collector.values("n"))
    first.kill()
    collector.deaf = False
    second = devices(mosquitto.url, boot="boot-2")
    second.append(10)
    eventually(lambda: not second.spool.old)
    assert collector.statements["boot-1", "inference"].produced == 100
    assert len(collector.points["boot-1", "inference"]) == 100
    second.close()
    assert set(collector.missing().values()) == {0}
    assert not list((second.config.state / "spool").iterdir())


def test_without_a_broker_it_says_so_once_and_keeps_the_points(devices: Any, eventually: Any) -> None:
    device = devices("mqtt://127.0.0.1:1")
    device.append(3)
    eventually(lambda: device.uplink._attempts >= 3)
    assert len(device.logged) == 1
    assert "cannot be used: connection refused" in device.logged[0]
    device.close()
    assert list((device.config.state / "spool").iterdir())


def test_a_missing_certificate_is_one_sentence(tmp_path: Path) -> None:
    from farrier_agent.uplink.connection import Connection

    broker = Broker("mqtts://127.0.0.1:1", ca=str(tmp_path / "none.pem"))
    with pytest.raises(InputError, match="certificate files cannot be used"):
        Connection(broker, client_id="x", will=("t", b""), settings=QUICK, wake=lambda: None)
