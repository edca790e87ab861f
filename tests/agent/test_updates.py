from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest

from farrier_agent.updates import Fetched, Settings, TryAgain, fetch
from farrier_contracts.bundle import Artifact, Compatibility, Manifest, build, load
from farrier_contracts.bundle.store import unpack
from farrier_contracts.errors import BundleError, FarrierError, InputError, TrustError
from farrier_contracts.tensors import TensorSpec

pytest.importorskip("farrier", reason="repositories are published by the host's package")
from farrier import repo

PARTS = {"model.bin": b"weights" * 1000, "labels.txt": b"cat\ndog\n", "notes.txt": b"notes"}
PATIENCE = Settings(silence_s=0.3, grace_s=0.3)


@dataclass(frozen=True)
class Device:
    """A device's folders, and what it was given."""

    folder: Path
    root: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def fetch(self, repository: str | Path, version: str = "1", *, settings: Settings = PATIENCE) -> Fetched:
        return fetch(
            repository=str(repository),
            root=self.root,
            trust=self.folder / "trust",
            store=self.store,
            bundle="tiny",
            version=version,
            settings=settings,
        )

    def arguments(self, repository: str | Path, version: str = "1") -> list[str]:
        """The same as a command."""
        return [
            *(sys.executable, "-m", "farrier_agent.updates", "fetch", "--repository", str(repository)),
            *("--root", str(self.root), "--trust", str(self.folder / "trust"), "--store", str(self.store)),
            *("--bundle", "tiny", "--version", version, "--patience-s", "0.3"),
        ]


Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Build a bundle file of some version, with some parts and needs."""

    def made(version: str, parts: dict[str, bytes] = PARTS, **fields: object) -> Path:
        path = tmp_path / f"{version}.farrier"
        manifest = Manifest(
            name="tiny",
            version=version,
            inputs=(TensorSpec("x", "FP32", (-1, 4)),),
            outputs=(),
            artifacts=(Artifact("model.bin", "null", "null", "fp32", "null"),),
        )
        build(path, replace(manifest, **fields), parts)
        return path

    return made


@pytest.fixture
def repository(tmp_path: Path, make: Make) -> repo.Repository:
    repository = repo.init(tmp_path / "repository")
    repo.publish(make("1"), repo=repository.folder)
    return repository


@pytest.fixture
def url(repository: repo.Repository) -> Iterator[str]:
    with repo.RepositoryServer(repository.folder) as server:
        yield server.url


@pytest.fixture
def device(tmp_path: Path, repository: repo.Repository) -> Device:
    shutil.copy(repository.root, tmp_path / "root.json")
    return Device(tmp_path / "device", tmp_path / "root.json")


def test_a_published_bundle_arrives_whole(url: str, device: Device) -> None:
    fetched = device.fetch(url)
    stored = load(device.store, fetched.digest)
    stored.verify()
    assert {name: stored.part(name).read_bytes() for name in PARTS} == PARTS
    assert (fetched.parts_fetched, fetched.bytes_fetched) == (3, sum(map(len, PARTS.values())))
    assert device.fetch(url) == replace(fetched, parts_fetched=0, bytes_fetched=0)


def test_a_folder_is_a_repository_too(repository: repo.Repository, device: Device) -> None:
    assert device.fetch(repository.public).parts_fetched == 3
    assert device.fetch(repository.public.as_uri()).parts_fetched == 0


def test_a_second_version_ships_only_what_changed(
    repository: repo.Repository, url: str, device: Device, make: Make
) -> None:
    device.fetch(url)
    repo.publish(make("2+a.b", {**PARTS, "labels.txt": b"cat\ncow\n"}), repo=repository.folder)
    fetched = device.fetch(url, "2+a.b")
    assert (fetched.parts_fetched, fetched.bytes_fetched) == (1, 8)
    load(device.store, fetched.digest).verify()


def test_a_bundle_unpacked_by_hand_need_not_be_fetched(url: str, device: Device, make: Make) -> None:
    unpack(make("1"), device.store)
    assert device.fetch(url).parts_fetched == 0


def test_a_damaged_part_in_the_store_is_fetched_again(url: str, device: Device) -> None:
    stored = load(device.store, device.fetch(url).digest)
    stored.part("model.bin").write_bytes(b"x" * len(PARTS["model.bin"]))
    assert device.fetch(url).parts_fetched == 1
    stored.verify()


def test_the_command_prints_one_json_line(url: str, device: Device) -> None:
    done = subprocess.run(device.arguments(url), capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "digest": next((device.store / "manifests").iterdir()).stem,
        "name": "tiny",
        "version": "1",
        "bytes_fetched": sum(map(len, PARTS.values())),
        "parts_fetched": 3,
    }


@pytest.mark.parametrize(
    ("version", "address", "code"),
    [("2", "", 2), ("../1", "", 2), ("1", "ftp://host/", 2), ("1", "http://127.0.0.1:9", 75)],
)
def test_the_command_refuses_in_one_sentence(
    url: str, device: Device, version: str, address: str, code: int
) -> None:
    done = subprocess.run(
        device.arguments(address or url, version), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert "Traceback" not in done.stderr


def test_importing_the_package_does_not_import_tuf() -> None:
    script = (
        "import sys, farrier_agent.updates; sys.exit('tuf' in sys.modules or 'cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    ("needs", "engine", "sentence"),
    [
        (Compatibility(arch=("pdp11",)), "null", "is for pdp11"),
        (Compatibility(memory_bytes=1 << 50), "null", "of memory"),
        (Compatibility(engines={"onnxruntime": "999.0"}), "onnxruntime", "needs onnxruntime 999"),
        (Compatibility(), "abacus", "needs abacus, which this device does not have"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_part_is_fetched(
    repository: repo.Repository,
    url: str,
    device: Device,
    make: Make,
    needs: Compatibility,
    engine: str,
    sentence: str,
) -> None:
    artifacts = (Artifact("model.bin", "null", engine, "fp32", "null"),)
    repo.publish(make("2", artifacts=artifacts, compatibility=needs), repo=repository.folder)
    with pytest.raises(BundleError, match=sentence):
        device.fetch(url, "2")
    assert not (device.store / "parts").exists()


def test_expired_metadata_is_refused_until_refreshed(
    repository: repo.Repository, url: str, device: Device, make: Make
) -> None:
    long_ago = datetime.now(timezone.utc) - timedelta(days=31)
    repo.publish(make("2"), repo=repository.folder, now=long_ago)
    with pytest.raises(TrustError, match=r"timestamp\.json.* is expired.*refresh"):
        device.fetch(url, "2")
    repo.refresh(repository.folder)
    device.fetch(url, "2")


def test_time_is_read_from_the_settings_where_given(url: str, device: Device) -> None:
    later = datetime.now(timezone.utc) + timedelta(days=40)
    with pytest.raises(TrustError, match="expired"):
        device.fetch(url, settings=replace(PATIENCE, reference_time=later))
    device.fetch(url)


def test_a_device_follows_the_root_to_its_next_version(
    repository: repo.Repository, url: str, device: Device
) -> None:
    in_two_years = datetime.now(timezone.utc) + timedelta(days=730)
    repo.refresh(repository.folder, now=in_two_years)
    assert (repository.metadata / "2.root.json").exists()
    assert device.fetch(url, settings=replace(PATIENCE, reference_time=in_two_years)).parts_fetched == 3
    assert json.loads((device.folder / "trust" / "root.json").read_bytes())["signed"]["version"] == 2


def test_an_unreachable_repository_is_worth_another_try(device: Device, tmp_path: Path) -> None:
    for repository in ("http://127.0.0.1:9", "http://nowhere.invalid", tmp_path / "unmounted"):
        with pytest.raises(TryAgain, match="try again later"):
            device.fetch(repository)


def test_a_root_that_is_none_is_refused(url: str, device: Device) -> None:
    device.root.write_bytes(b"{}")
    with pytest.raises(TrustError, match=r"root\.json is not valid root metadata"):
        device.fetch(url)
    device.root.unlink()
    with pytest.raises(InputError, match="does not exist"):
        device.fetch(url)


def test_a_disk_too_small_is_told_before_anything_is_fetched(url: str, device: Device) -> None:
    with pytest.raises(TryAgain, match="free some space"):
        device.fetch(url, settings=replace(PATIENCE, free_bytes_kept=1 << 60))
    assert not (device.store / "parts").exists()


def test_a_fetch_killed_in_the_middle_goes_on_where_it_was(
    repository: repo.Repository, device: Device, eventually: Callable[..., object]
) -> None:
    """The server holds back the second part; the first survives the kill -9."""
    asked, release, count = Event(), Event(), [0]

    class Holding(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if "/parts/" in self.path:
                count[0] += 1
                if count[0] == 2:
                    asked.set()
                    release.wait(60)
            super().do_GET()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args: Holding(*args, directory=str(repository.public))
    )
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        address = f"http://127.0.0.1:{server.server_address[1]}"
        arguments = [*device.arguments(address)[:-1], "60"]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
            assert asked.wait(60)
            child.kill()
        release.set()
        assert not (device.store / "manifests").exists()
        fetched = device.fetch(address)
    finally:
        release.set()
        server.shutdown()
        thread.join()
        server.server_close()
    assert fetched.parts_fetched == 2
    load(device.store, fetched.digest).verify()
    assert not list(device.store.rglob("*.tmp"))


def test_errors_are_ours(url: str, device: Device) -> None:
    """A bundle's name and version are checked before they become part of an address."""
    for version in ("", "..", "a/b", "%2e%2e", "1\n"):
        with pytest.raises(FarrierError, match="a version is"):
            device.fetch(url, version)
