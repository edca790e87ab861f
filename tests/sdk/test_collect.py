"""The collector between a real broker and the store: what it keeps, acknowledges, repeats and refuses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import threading
import time
import zlib
from pathlib import Path

import cbor2
import pytest

from farrier import store as stores
from farrier.store import writing
from farrier_contracts.wire.documents import Desired, State, WantedDeployment

SECOND = 10**9


def account(store, name="a"):
    return next(iter(stores.balance(store, stores.device(store, name).id)), None)


def known(store):
    return {each.name: each for each in stores.devices(store)}


def test_everything_a_device_says_is_stored(broker, collector, new_device, fleet_store, eventually):
    device = new_device(broker, "a")
    device.announce()  # before the collector: retained messages tell it
    with collector(broker):
        device.produce(100)
        eventually(device.step, what="all acknowledged")
        device.report(0)
        device.publish("e", {"reason": "test"}, "swap")
        row = stores.device(fleet_store, "a").id
        eventually(lambda: stores.events(fleet_store, row), what="the event")
        eventually(lambda: account(fleet_store).settled, what="a settled account")
        found = stores.device(fleet_store, "a")
        assert found.online
        assert found.birth["arch"] == "x86_64"
        assert stores.events(fleet_store, row)[0].document == {"reason": "test"}
        assert account(fleet_store).received == 100
        device.die()
        eventually(lambda: not stores.device(fleet_store, "a").online, what="the will")


@pytest.mark.parametrize("seed", [1, 2])
def test_kill_9_at_any_moment_loses_and_doubles_nothing(
    seed, mosquitto, collector, new_device, fleet_store, eventually
):
    chance = random.Random(seed)
    devices = [new_device(mosquitto, name) for name in ("a", "b")]
    total, kills = 1500, 5
    for device in devices:
        device.announce()
        device.produce(total)

    def progress(limit: int):
        return lambda: [device.step() for device in devices] and devices[0].acknowledged >= limit

    for kill in range(kills):
        with collector(mosquitto) as process:
            wanted = total * (kill + 1) // (kills + 1) - chance.randrange(100)
            eventually(progress(wanted), what=f"{wanted} points")
            process.kill()
            process.wait()
    with collector(mosquitto):
        eventually(lambda: all([device.step() for device in devices]), what="all acknowledged")
        for device in devices:
            device.report(0)
        eventually(lambda: all(account(fleet_store, name).settled for name in "ab"), what="settled accounts")
    for device in devices:
        rows = fleet_store.connection.execute(
            "SELECT seq, readings FROM points JOIN streams ON stream_id = streams.id WHERE device_id = ? ORDER BY seq",
            (stores.device(fleet_store, device.name).id,),
        ).fetchall()
        assert [seq for seq, _ in rows] == list(range(total))
        assert all(json.loads(readings) == {"inference.requests": seq} for seq, readings in rows)
        assert account(fleet_store, device.name).received == total


def test_gaps_duplicates_and_disorder(mosquitto, collector, new_device, fleet_store, eventually):
    device = new_device(mosquitto, "a")
    device.produce(40)
    with collector(mosquitto):
        eventually(lambda: device.client.is_connected() and device.step(20), what="the first 40")
        device.produce(40)
        device.send(60, 69)
        device.send(70, 79)
        eventually(lambda: account(fleet_store).received == 60, what="points beyond the gap")
        assert device.acknowledged == 39
        device.send(60, 69)
        device.send(40, 59)
        eventually(lambda: device.acknowledged == 79, what="the gap filled")
        assert account(fleet_store).received == 80
        assert account(fleet_store).duplicates >= 10


def test_what_a_device_dropped_is_not_waited_for(mosquitto, collector, new_device, fleet_store, eventually):
    device = new_device(mosquitto, "a")
    device.produce(30)
    with collector(mosquitto):
        eventually(lambda: known(fleet_store) or device.announce(), what="the collector listens")
        device.send(0, 9)
        eventually(lambda: device.acknowledged == 9, what="the first ten")
        device.send(20, 29, low=20)
        eventually(lambda: device.acknowledged == 29, what="the rest")
        device.report(0, dropped=((10, 19),))
        eventually(lambda: account(fleet_store).settled, what="a settled account")
        assert (account(fleet_store).received, account(fleet_store).ledgered) == (20, 10)


def test_wall_time_is_derived_from_the_devices_clock(
    mosquitto, collector, new_device, fleet_store, eventually
):
    synced, unset = new_device(mosquitto, "synced"), new_device(mosquitto, "unset")
    before = time.time_ns()
    with collector(mosquitto):
        for device, wall_ns in ((synced, 1_750_000_000 * SECOND), (unset, 5 * SECOND)):
            device.produce(10)
            eventually(
                lambda: device.acknowledged == 9 or device.send(0, 9, wall_ns=wall_ns),  # noqa: B023
                what="ten points",
            )
    times = {
        name: [
            wall
            for (wall,) in fleet_store.connection.execute(
                "SELECT wall_ns FROM points JOIN streams ON stream_id = streams.id WHERE device_id = ? ORDER BY seq",
                (each.id,),
            )
        ]
        for name, each in known(fleet_store).items()
    }
    assert times["synced"] == [(1_750_000_000 - 9 + index) * SECOND for index in range(10)]
    assert before - 20 * SECOND < times["unset"][0] < times["unset"][-1] < time.time_ns()


def test_a_device_is_told_what_it_should_run(broker, collector, new_device, fleet_store, eventually):
    with fleet_store.transaction():
        row = writing.device_id(fleet_store, "demo", "a")
        writing.set_desired(fleet_store, row, Desired(3, (WantedDeployment("digits", "digits", "1.0.0"),)))
    device = new_device(broker, "a")
    with collector(broker):
        eventually(lambda: device.desired, what="the desired state on connecting")
        assert device.desired[-1].version == 3
        device.client.publish(device.topic("desired"), b"", 1, True).wait_for_publish(
            10
        )  # the broker forgets
        told = len(device.desired)
        device.announce()
        eventually(lambda: len(device.desired) > told, what="the desired state after a birth")

    late = new_device(broker, "late")
    late.client.subscribe(device.topic("desired"), 1)
    eventually(lambda: late.desired, what="the retained desired state")


def test_a_device_that_is_behind_is_told_again_but_not_flooded(
    mosquitto, collector, new_device, fleet_store, eventually
):
    with collector(mosquitto):
        device = new_device(mosquitto, "a")
        eventually(lambda: known(fleet_store) or device.announce(), what="the device is known")
        with fleet_store.transaction():
            row = writing.device_id(fleet_store, "demo", "a")
            writing.set_desired(fleet_store, row, Desired(1))
        for _ in range(5):
            device.report(0)
        eventually(lambda: device.desired, what="the desired state")
        device.report(1)
        eventually(lambda: stores.device(fleet_store, "a").reported.desired_version == 1, what="the report")
        assert len(device.desired) == 1


def test_the_will_of_an_older_session_is_ignored(mosquitto, collector, new_device, fleet_store, eventually):
    with collector(mosquitto):
        new = new_device(mosquitto, "a", session=2)
        eventually(lambda: known(fleet_store) or new.announce(), what="the device is known")
        new.publish("state", State(False, 1, "boot-0").to_document())
        new.publish("e", {}, "after")
        row = stores.device(fleet_store, "a").id
        eventually(lambda: stores.events(fleet_store, row), what="the event behind the will")
        assert stores.device(fleet_store, "a").online


BOMB = zlib.compress(b"\0" * (16 << 20))


def hostile(chance: random.Random) -> tuple[str, bytes]:
    good = {
        "v": 1, "boot": "x", "seq": 0, "low": 0, "t": [1, 2], "wall": [1, 1_800_000_000 * SECOND, 0],
        "cols": {"m": [1, 2]},
    }  # fmt: skip
    odd = [
        None,
        -1,
        1 << 64,
        1e308,
        float("nan"),
        "\ud800",
        "x" * 9999,
        [],
        {},
        [[]],
        b"\xff",
        True,
        {"a": {1: 2}},
    ]
    document = dict(good)
    document[chance.choice(list(good))] = chance.choice(odd)
    raw = cbor2.dumps(good)
    payloads = [
        b"", b"{", b"\xff" * 50, b"[" * 5000, b"{\"a\":" * 5000, b"\x81" * 5000, b"\xa1\x61a" * 5000,
        bytes.fromhex("9b0fffffffffffffff"), bytes.fromhex("bb0fffffffffffffff"), bytes.fromhex("5b0fffffffffffffff"),
        bytes.fromhex("d81c81d81d00"), bytes.fromhex("a16161d81c81d81d00"),  # a list that holds itself
        BOMB, zlib.compress(raw)[:-3], raw[: chance.randrange(len(raw))],
        chance.randbytes(chance.randrange(1, 300)), chance.randbytes(200_000),
        b'{"seq": 1e999, "v": NaN}', b'{"v":' + b"9" * 5000 + b"}",
        json.dumps(document, default=str).encode(),
    ]  # fmt: skip
    with contextlib.suppress(UnicodeEncodeError, cbor2.CBOREncodeError):
        payloads.append(cbor2.dumps(document))
    kinds = [
        "state",
        "birth",
        "reported",
        "t/inference",
        "e/swap",
        "t/" + "x" * 80,
        "t",
        "other",
        "e/Ü",
        "ack/x",
    ]
    names = ["a", "mallory", "Ö", "x" * 90, ".."]
    return f"farrier/v1/demo/{chance.choice(names)}/{chance.choice(kinds)}", chance.choice(payloads)


def test_hostile_messages_are_counted_and_dropped(
    mosquitto, collector, new_device, fleet_store, eventually, tmp_path
):
    chance = random.Random(7)
    device = new_device(mosquitto, "a")
    device.announce()
    with collector(mosquitto) as process:
        eventually(lambda: known(fleet_store), what="the collector listens")
        device.produce(300)
        for _ in range(400):
            topic, payload = hostile(chance)
            device.client.publish(topic, payload, 1, retain=chance.random() < 0.1)
        eventually(device.step, what="the honest points among them")
        device.report(0)
        eventually(lambda: account(fleet_store).settled, what="a settled account")
        assert process.poll() is None
    assert process.returncode == 0
    lines = (tmp_path / "collector.log").read_text().splitlines()
    dropped = [line for line in lines if "was dropped" in line]
    assert 3 < len(dropped) == len(set(dropped))
    assert not any("Traceback" in line for line in lines)


@pytest.fixture
def tiny_disk(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_acknowledges_nothing_and_goes_on_when_there_is_room(
    mosquitto, collector, new_device, tiny_disk, eventually, tmp_path
):
    url = f"sqlite:///{tiny_disk}/fleet.db"
    device = new_device(mosquitto, "a")
    device.announce()
    device.produce(20)
    log = tmp_path / "collector.log"
    with collector(mosquitto, store=url) as process:
        eventually(device.step, what="the first points")
        ballast = tiny_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
            while True:
                file.write(bytes(4096))
        device.produce(2000)
        eventually(lambda: device.step() or "disk is full" in log.read_text(), what="the sentence")
        held = device.acknowledged
        assert held < 2019
        ballast.unlink()
        eventually(lambda: device.step() or device.acknowledged > held, what="room again")
        assert "takes data again" in log.read_text()
        assert log.read_text().count("disk is full") == 1
        process.terminate()
        process.wait(20)
    with stores.open_store(url) as store:
        assert account(store).received >= device.acknowledged + 1


def test_a_broker_that_restarts_is_found_again(
    tmp_path, collector, running, free_port, new_device, fleet_store, eventually
):
    port = free_port()
    url = f"mqtt://127.0.0.1:{port}"
    (tmp_path / "m.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    mosquitto = ("/usr/sbin/mosquitto", "-c", str(tmp_path / "m.conf"))
    if not Path(mosquitto[0]).exists():
        pytest.skip("mosquitto is not installed")
    with running(*mosquitto, log=tmp_path / "m.log"), collector(url, "--connect-timeout", "20"):
        device = new_device(url, "a")
        device.produce(50)
        eventually(device.step, what="the first 50")
        with running(*mosquitto, log=tmp_path / "m2.log"):  # refused: the port is taken
            pass
    with (
        collector(url, "--connect-timeout", "20") as process,
        running(*mosquitto, log=tmp_path / "m.log") as first,
    ):
        device.produce(50)
        eventually(device.step, what="100, by a collector that was there before its broker")
        first.kill()
        first.wait()
        eventually(lambda: "lost the broker" in (tmp_path / "collector.log").read_text(), what="the sentence")
        with running(*mosquitto, log=tmp_path / "m.log"):
            device.produce(50)
            eventually(device.step, what="150, through the restarted broker")
        assert process.poll() is None
    assert account(fleet_store).received == 150


def test_events_sent_while_no_collector_runs_are_kept_by_the_broker(
    mosquitto, collector, new_device, fleet_store, eventually
):
    device = new_device(mosquitto, "a")
    with collector(mosquitto):
        eventually(lambda: known(fleet_store) or device.announce(), what="the collector knows the device")
    for number in range(30):
        device.publish("e", {"number": number}, "swap")
    row = stores.device(fleet_store, "a").id
    with collector(mosquitto):
        eventually(lambda: len(stores.events(fleet_store, row)) == 30, what="30 events")


def test_the_typed_function_stops_and_tells_what_it_did(mosquitto, new_device, tmp_path, eventually):
    from farrier.collector import collect

    stop, said, done = threading.Event(), [], []
    url = f"sqlite:///{tmp_path}/typed.db"
    worker = threading.Thread(target=lambda: done.append(collect(mosquitto, url, stop=stop, say=said.append)))
    worker.start()
    device = new_device(mosquitto, "a")
    device.produce(25)
    eventually(device.step, what="25 points")
    stop.set()
    worker.join(20)
    assert done[0].points == 25
    assert said[0].startswith("connected")
