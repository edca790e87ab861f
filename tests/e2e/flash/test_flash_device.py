"""`farrier flash` from end to end: a real sshd, a real broker, the real agent, installed offline and started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cbor2
import pytest

import farrier
import farrier.flashing as flashing
from farrier import processes, repo
from farrier.bundle import build
from farrier.collector import connect, new_client, parse_broker
from farrier.flashing import plan, steps
from farrier.flashing.facts import Place
from farrier.flashing.ssh import Connection, Remote
from farrier.flashing.wheels import wheelhouse
from farrier_contracts.errors import FarrierError

FARRIER = [sys.executable, "-c", "import sys; from farrier.cli import main; sys.exit(main())"]
FLASH_LIMIT_S = 240
DIGITS = Path(farrier.__file__).parent / "showcase" / "assets" / "digits.onnx"


@dataclass(frozen=True)
class Bench:
    """One device, one fleet, one prefix of a test's own."""

    prefix: Path
    fleet: Path
    cache: Path
    arguments: list[str]

    def command(self, *extra: str) -> list[str]:
        where = [
            "--fleet",
            str(self.fleet),
            "--prefix",
            str(self.prefix),
            "--service",
            "plain",
            "--no-at-boot",
        ]
        return [*FARRIER, "flash", *self.arguments, *where, *extra]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "FARRIER_CACHE": str(self.cache)}

    def flash(self, *extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*extra),
            capture_output=True, text=True, timeout=FLASH_LIMIT_S, check=False, env=self.environment,
        )  # fmt: skip

    def flashed(self, *extra: str) -> dict:
        done = self.flash("--json", *extra)
        if "package index cannot be reached" in done.stderr:
            pytest.skip("no package index")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, *extra: str) -> str:
        """The one sentence that a flash ends with when it exits 1; progress lines come before it."""
        done = self.flash(*extra)
        assert done.returncode == 1, done.stderr
        sentences = [line for line in done.stderr.splitlines() if line.startswith("farrier: ")]
        assert len(sentences) == 1
        assert "Traceback" not in done.stderr
        return sentences[0]

    def ctl(self, *arguments: str) -> str:
        control = self.prefix / "bin" / "farrier-agentctl"
        return subprocess.run(
            [control, *arguments], capture_output=True, text=True, timeout=90, check=False
        ).stdout

    @property
    def current(self) -> str:
        return str((self.prefix / "current").readlink())

    @property
    def releases(self) -> set[str]:
        return {path.name for path in (self.prefix / "releases").iterdir()}


@pytest.fixture
def bench(device, broker, fleet_file, wheel_cache, eventually) -> Iterator[Bench]:
    with tempfile.TemporaryDirectory(prefix="f-") as folder:  # short: Unix sockets are made below it
        made = Bench(Path(folder) / "prefix", fleet_file(broker), wheel_cache, device.arguments)
        yield made
        if (made.prefix / "bin" / "farrier-agentctl").exists():
            made.ctl("stop")
        eventually(lambda: not processes_of(made.prefix), limit_s=60, what="no process is left")


def processes_of(prefix: Path) -> list[str]:
    lines = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if f"{prefix}/" in line]


@contextmanager
def client_of(broker: str) -> Iterator:
    where = parse_broker(broker)
    client = new_client(where, "flash-test")
    connect(client, where)
    client.loop_start()
    try:
        yield client
    finally:
        client.disconnect()
        client.loop_stop()


def test_from_nothing_to_a_birth_and_again(bench, broker, eventually):
    """Install, start, hear from it; do it again; then break an upgrade in the middle."""
    first = bench.flashed("--device", "bench-1")
    assert (first["release"], first["kept"], first["device"]) == (1, False, "bench-1")
    assert [step["name"] for step in first["steps"]] == ["look", "wheels", "install", "activate", "birth"]
    assert first["boot"]
    assert bench.ctl("status").startswith("running")
    assert bench.current == "releases/1"
    assert (bench.prefix / "etc" / "agent.toml").stat().st_mode & 0o777 == 0o600
    assert (bench.prefix / "etc" / "root.json").stat().st_mode & 0o777 == 0o644
    assert not (bench.prefix / "releases" / "1" / "wheels").exists()  # they would only take room
    keepsake = bench.prefix / "state" / "keepsake"
    keepsake.write_text("kept")

    again = bench.flashed()
    assert (again["release"], again["kept"], again["device"]) == (1, True, "bench-1")
    assert again["boot"] != first["boot"]
    assert "install" not in [step["name"] for step in again["steps"]]
    assert keepsake.read_text() == "kept"

    interrupted_upgrade(bench, eventually)
    assert bench.ctl("status").startswith("running")
    assert bench.current == "releases/1"

    upgraded = bench.flashed("--engine", "litert")
    assert (upgraded["release"], upgraded["kept"]) == (2, False)
    assert bench.current == "releases/2"
    assert str((bench.prefix / "previous").readlink()) == "releases/1"
    assert bench.releases == {"1", "2"}
    assert keepsake.read_text() == "kept"

    bench.ctl("stop")
    assert "stopped" in bench.ctl("status")


def interrupted_upgrade(bench: Bench, eventually: Callable) -> None:
    """Kill the client in the middle of an upload: the half release goes, nothing else changes."""
    with (bench.fleet.parent / "interrupted.log").open("wb") as log:
        process = subprocess.Popen(
            bench.command("--engine", "litert"),
            stdout=log,
            stderr=log,
            env={
                **bench.environment,
                "TMPDIR": str(bench.prefix.parent),
            },  # what a killed client leaves goes too
        )
        wheels = bench.prefix / "releases" / "2" / "wheels"
        eventually(
            lambda: wheels.is_dir() or process.poll() is not None, limit_s=120, what="the upload begins"
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL, log.name
    eventually(lambda: not (bench.prefix / "lock").exists(), limit_s=60, what="the device gives up")
    assert bench.releases == {"1"}


def test_a_bundle_is_live_when_the_command_ends(bench, broker, tmp_path, eventually):
    """The file of a published bundle: its engine is installed, the device fetches it, and it answers."""
    bundle = tmp_path / "digits.farrier"
    build(DIGITS, name="digits", version="1", target="host", output=bundle)
    repository = repo.init(tmp_path / "repository")
    repo.publish(bundle, repo=repository.folder)
    shutil.copyfile(repository.root, tmp_path / "root.json")
    with repo.RepositoryServer(repository.folder) as server:
        text = bench.fleet.read_text()
        bench.fleet.write_text(text.replace("http://127.0.0.1:9", server.url))
        assert "is `farrier collect` running?" in bench.refused("--device", "eyes", "--bundle", str(bundle))
        store = f"sqlite:///{bench.fleet.parent / 'fleet.db'}"
        with processes.ProcessGroup(tmp_path) as group:
            group.start("collect", ["farrier", "collect", "--broker", broker, "--store", store])
            done = bench.flashed("--bundle", str(bundle))
    assert (done["bundle"], done["device"], done["engines"]) == ("digits@1", "eyes", ["onnx"])
    assert done["steps"][-1]["name"] == "deploy"


def test_a_dry_run_changes_nothing(bench):
    done = bench.flash("--dry-run", "--device", "bench-2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("bench-2: ")
    assert str(bench.prefix) in done.stdout
    assert not bench.prefix.exists()


def test_an_agent_that_is_never_heard_from(bench, start_mosquitto, fleet_file):
    """The broker lets it in and drops what it says: the sentence tells what its log says."""
    fleet_file(start_mosquitto(acl="topic read farrier/#\n"))
    sentence = bench.refused("--device", "mute", "--timeout", "5")
    assert "not heard from within 5 s; its log ends with: " in sentence


def test_an_unreachable_broker_is_found_before_anything_is_installed(bench, free_port):
    text = bench.fleet.read_text()
    bench.fleet.write_text(text.replace(text.split('"')[3], f"mqtt://127.0.0.1:{free_port()}"))
    assert "no broker answers" in bench.refused()
    assert not bench.prefix.exists()


def test_a_name_that_is_taken(bench, broker):
    state = cbor2.dumps({"online": True, "session": 1, "boot": "b"})
    with client_of(broker) as client:
        client.publish("farrier/v1/workshop/twin/state", state, qos=1, retain=True).wait_for_publish(10)
    assert "twin is online in the fleet workshop already" in bench.refused("--device", "twin")
    assert not bench.prefix.exists()


def test_refusals_of_ssh_end_the_command(bench, tmp_path, ssh_key, free_port):
    other = replace(bench, arguments=[*bench.arguments, "--identity", str(ssh_key(tmp_path / "other"))])
    assert "refused the key" in other.refused()
    closed = replace(bench, arguments=[*bench.arguments, "--port", str(free_port())])
    assert "nothing listens" in closed.refused()


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 100 MB: enough to begin with, and not for the wheels."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = os.geteuid() == 0 and shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    if not mounted:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_is_seen_before_the_upload(bench, small_disk):
    sentence = replace(bench, prefix=small_disk / "farrier").refused("--device", "small")
    assert "MiB free and the agent needs" in sentence
    assert list(small_disk.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(bench, device, small_disk, wheel_cache):
    remote = Remote(device.destination, device.port, device.identity, options=device.ssh_options)
    prefix = str(small_disk / "farrier")
    with Connection(remote) as connection:
        facts = steps.look(connection, prefix)
        planned = plan.plan(facts, plan.Options(device="full", prefix=prefix, service="plain", at_boot=False))
        wheels = wheelhouse.resolve(planned.platform, planned.engines, cache=wheel_cache)
        seen_earlier = replace(planned, place=Place(free_bytes=1 << 40))
        with pytest.raises(FarrierError, match="disk is full") as caught:
            steps.install(connection, seen_earlier, wheels, on_step=lambda line: None)
    assert "\n" not in str(caught.value)
    assert list((small_disk / "farrier" / "releases").iterdir()) == []


def test_the_function_and_the_command_are_one():
    assert farrier.flash is flashing.flash
