"""FLEET.toml and the fleet commands, with a real broker, a real collector and devices that answer."""

from __future__ import annotations

import json

import pytest

from farrier import fleet as fleets
from farrier import repo
from farrier import store as stores
from farrier.cli import main
from farrier.fleet import metrics, words
from farrier.fleet.rollouts import next_version, with_deployment
from farrier.store import Bucket, writing
from farrier_contracts.errors import InputError
from farrier_contracts.wire.documents import Desired, Reported, RunningDeployment, WantedDeployment

SECOND = 10**9


@pytest.fixture
def root(tmp_path):
    return repo.init(tmp_path / "repository").root


@pytest.fixture
def fleet_file(tmp_path, mosquitto, root):
    return fleets.init_fleet(
        tmp_path, name="demo", broker=mosquitto, repository="http://127.0.0.1:1", root=root
    )


def running(version: str, phase: str = "live", detail: str = "") -> RunningDeployment:
    return RunningDeployment("digits", "digits", version, "sha256:0", phase, "http://127.0.0.1:1", detail)


def obey(device, *, phase: str = "live") -> None:
    """Report the newest desired state as done, as an agent would."""
    wanted = device.desired[-1]
    device.report(
        wanted.version,
        *(running(each.version, phase, "why" * (phase == "failed")) for each in wanted.deployments),
    )


def test_init_makes_a_file_that_loads(tmp_path, root, capsys):
    folder = tmp_path / "new" / "fleet"
    options = [
        "--name",
        "demo",
        "--broker",
        "mqtt://me:secret@h:1",
        "--repository",
        "http://h:2",
        "--root",
        str(root),
    ]
    assert main(["fleet", "init", str(folder), *options]) == 0
    path = folder / "FLEET.toml"
    assert capsys.readouterr().out.strip() == str(path)
    loaded = fleets.load_fleet(path)
    assert (loaded.name, loaded.broker.password, loaded.repository_url) == ("demo", "secret", "http://h:2")
    assert loaded.root.read_bytes() == root.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    with loaded.open_store() as store:
        assert store.path == folder / "fleet.db"
    assert main(["fleet", "init", str(folder), *options]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "fleet's name"),
        ("name = 'demo'", "'url' in [broker]"),
        ("name = 'demo'\nbroker = 3", "'url' in [broker]"),
        ("name = 'demo'\n[broker]\nurl = 'http://h'", "mqtt://host:1883"),
        ("name = ", "cannot be read"),
        ("name = 'Ä'", "fleet's name"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, words, capsys):
    path = tmp_path / "FLEET.toml"
    path.write_text(text)
    assert main(["fleet", "ls", "--fleet", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert words in said


def test_no_file_and_no_choice_are_wrong_usage(tmp_path, fleet_file, capsys):
    assert main(["fleet", "ls", "--fleet", str(tmp_path / "none.toml")]) == 2
    assert main(["fleet", "rollout", "digits@1.0.0", "--fleet", str(fleet_file)]) == 2
    assert "--all" in capsys.readouterr().err
    assert main(["fleet", "rollout", "digits", "--all", "--fleet", str(fleet_file)]) == 2
    assert "NAME@VERSION" in capsys.readouterr().err
    assert main(["fleet", "rollout", "digits@1", "--all", "--fleet", str(fleet_file)]) == 2
    assert "no devices yet" in capsys.readouterr().err
    assert main(["fleet", "show", "nobody", "--fleet", str(fleet_file)]) == 2
    assert "nobody" in capsys.readouterr().err


def test_rollout_and_rollback_reach_the_devices(
    mosquitto, collector, new_device, fleet_store, fleet_file, eventually, capsys
):
    devices = [new_device(mosquitto, name) for name in ("a", "b")]
    at = ["--fleet", str(fleet_file)]
    with collector(mosquitto):
        for device in devices:
            device.announce()
        eventually(lambda: len(stores.devices(fleet_store)) == 2, what="both devices")
        assert main(["fleet", "rollout", "digits@1.0.0", "--all", "--port", "8600", *at]) == 0
        for device in devices:
            eventually(lambda: device.desired, what="version 1")  # noqa: B023
            assert device.desired[-1] == Desired(1, (WantedDeployment("digits", "digits", "1.0.0", 8600),))
            obey(device)
        loaded = fleets.load_fleet(fleet_file)
        asked = fleets.rollout(loaded, "digits@2.0.0", names=["a"])
        assert [(each.device, each.version, each.phase) for each in asked] == [("a", 2, "waiting")]
        eventually(lambda: devices[0].desired[-1].version == 2, what="version 2")
        obey(devices[0], phase="failed")
        (end,) = fleets.watch(loaded, asked, timeout_s=30)
        assert (end.phase, end.detail) == ("failed", "why")
        assert devices[1].desired[-1].version == 1
        capsys.readouterr()
        assert main(["fleet", "rollback", "--device", "b", *at]) == 2
        assert "no other desired state" in capsys.readouterr().err
        asked = fleets.rollback(loaded, names=["a"])
        eventually(lambda: devices[0].desired[-1].version == 3, what="version 3")
        assert devices[0].desired[-1].deployments == (WantedDeployment("digits", "digits", "1.0.0", 8600),)
        obey(devices[0])
        (end,) = fleets.watch(loaded, asked, timeout_s=30)
        assert end.phase == "live"
        assert (
            main(["fleet", "rollout", "digits@3.0.0", "--device", "a", "--wait", "--timeout", "0.1", *at])
            == 1
        )
        assert "a (waiting)" in capsys.readouterr().err


def test_a_rollout_while_the_broker_is_away_is_kept(
    tmp_path, root, fleet_store, free_port, monkeypatch, capsys
):
    monkeypatch.setattr("farrier.fleet.rollouts.DELIVERY_TIMEOUT_S", 0.2)
    path = fleets.init_fleet(
        tmp_path, name="demo", broker=f"mqtt://127.0.0.1:{free_port()}", repository="http://h", root=root
    )
    with fleet_store.transaction():
        writing.device_id(fleet_store, "demo", "a")
    assert main(["fleet", "rollout", "digits@1.0.0", "--all", "--fleet", str(path)]) == 1
    assert "the wish is kept" in capsys.readouterr().err
    assert stores.device(fleet_store, "a").desired.deployments[0].version == "1.0.0"


def test_ls_and_show_tell_what_is_stored(
    mosquitto, collector, new_device, fleet_store, fleet_file, eventually, capsys
):
    device = new_device(mosquitto, "a")
    at = ["--fleet", str(fleet_file)]
    values = {
        "inference.requests{digits}": 12,
        "inference.latency.p50{digits}": 0.002,
        "inference.latency.p99{digits}": 0.004,
    }
    with collector(mosquitto):
        device.announce()
        device.produce(20, values)
        eventually(device.step, what="20 points")
        device.report(0, running("1.0.0"))
        device.publish("e", {"detail": "digits 0.9 to 1.0"}, "swap")
        row = stores.device(fleet_store, "a").id
        eventually(lambda: stores.events(fleet_store, row), what="the event")
        assert main(["fleet", "ls", "--json", *at]) == 0
        (facts,) = json.loads(capsys.readouterr().out)
        assert (facts["device"], facts["presence"]) == ("a", "online")
        assert facts["deployments"][0]["version"] == "1.0.0"
        assert facts["performance"]["requests_per_s"] == pytest.approx(12)
        assert facts["performance"]["p99_s"] == pytest.approx(0.004)
        assert facts["balance"] == {
            "produced": 20,
            "received": 20,
            "ledgered": 0,
            "duplicates": 0,
            "missing": 0,
            "settled": True,
        }
        assert main(["fleet", "ls", *at]) == 0
        table = capsys.readouterr().out
        assert "online" in table
        assert "4 ms" in table
        assert main(["fleet", "show", "a", *at]) == 0
        shown = capsys.readouterr().out
        assert "20 points stored, balanced" in shown
        assert "swap: digits 0.9 to 1.0" in shown
        assert main(["fleet", "show", "a", "--json", *at]) == 0
        details = json.loads(capsys.readouterr().out)
        assert details["streams"][0]["settled"]
        assert details["birth"]["arch"] == "x86_64"


def test_the_next_desired_state_keeps_other_deployments_and_only_grows(tmp_path):
    other = WantedDeployment("other", "o", "1")
    with stores.open_store("sqlite:///x.db", base=tmp_path) as store:
        with store.transaction():
            row = writing.device_id(store, "demo", "a")
            writing.set_desired(store, row, Desired(2, (other, WantedDeployment("digits", "digits", "1"))))
            writing.set_reported(store, row, Reported(9).to_document())  # it remembers more than this store
        device = stores.device(store, "a")
    wanted = WantedDeployment("digits", "digits", "2")
    assert next_version(device) == 10
    assert with_deployment(device, wanted) == Desired(10, (wanted, other))


def test_a_rate_is_a_sum_over_the_time_that_points_cover(tmp_path):
    from farrier_contracts.wire.telemetry import Batch, Clock, Point

    points = []
    for seq in range(10):  # every two seconds; quiet in every second point
        values = {"inference.requests{a}": 10, "inference.requests{b}": 4}
        if seq % 2:
            values = {"inference.requests{a}": 0, "inference.requests{b}": 0}
        else:
            values |= {
                "inference.latency.p99{a}": 0.1 * seq,
                "inference.cache.hits{a}": 5,
                "inference.cache.misses{a}": 5,
            }
        points.append(Point(seq, seq * 2 * SECOND, values))
    with stores.open_store("sqlite:///x.db", base=tmp_path) as store:
        with store.transaction():
            row = writing.device_id(store, "demo", "a")
            stream = writing.stream_id(store, row, "b", "inference")
            writing.add_batch(store, stream, Batch("b", 0, Clock(0, 0), tuple(points)), wall_offset_ns=0)
        found = metrics.performance(store, row, now_ns=20 * SECOND)
        silent = metrics.performance(store, row, now_ns=200 * SECOND)
    assert found.requests_per_s == pytest.approx(14 / 4)
    assert found.p99_s == pytest.approx(0.8)
    assert found.cache_hit_share == pytest.approx(0.5)
    assert silent.requests_per_s is None
    assert Bucket(0, 2, 3.0, 1.0, 2.0).mean == 1.5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0, "0"),
        (0.00085, "850 µs"),
        (0.00321, "3.21 ms"),
        (0.02, "20 ms"),
        (0.9999, "1.00 s"),
        (75, "75 s"),
    ],
)
def test_latencies_are_readable(seconds, text):
    assert words.latency(seconds) == text


def test_numbers_are_readable():
    assert [words.digits(v) for v in (None, 0, 3, 2.345, 12.34, 123.4, 12345.6)] == [
        "–",
        "0",
        "3",
        "2.35",
        "12.3",
        "123",
        "12,346",
    ]
    assert [words.size(v) for v in (12, 4096, 90 << 20)] == ["12 B", "4 KiB", "90 MiB"]
    assert [words.ago(v) for v in (None, 0.5, 30, 120, 7200, 200000)] == [
        "never",
        "now",
        "30 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]


def test_presence(tmp_path):
    from dataclasses import replace

    with stores.open_store("sqlite:///x.db", base=tmp_path) as store:
        with store.transaction():
            writing.device_id(store, "demo", "a")
        device = stores.device(store, "a")
    assert metrics.presence(device, 0) == "offline"
    online = replace(device, online=True, seen_ns=100 * SECOND)
    assert metrics.presence(online, 101 * SECOND) == "online"
    assert metrics.presence(online, 200 * SECOND) == "silent"


def test_init_refuses_a_missing_root(tmp_path):
    with pytest.raises(InputError, match="root of trust"):
        fleets.init_fleet(
            tmp_path / "f", name="demo", broker="mqtt://h", repository="http://h", root=tmp_path / "no"
        )
    assert not (tmp_path / "f").exists()
