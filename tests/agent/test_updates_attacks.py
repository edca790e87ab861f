"""Repositories that lie: rolled back, mixed, foreign, flipped, cut short, endless, trickling."""

from __future__ import annotations

import random
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from threading import Event, Thread

import pytest
from tuf.api.metadata import Metadata

from farrier_agent.updates import Settings, TryAgain, fetch
from farrier_agent.updates.client import Client
from farrier_contracts.bundle import Artifact, Manifest, build, load
from farrier_contracts.errors import TrustError
from farrier_contracts.tensors import TensorSpec

pytest.importorskip("farrier", reason="repositories are published by the host's package")
from farrier import repo
from farrier.repo import signing

FLIPS = 12  # of each file
PATIENCE = Settings(silence_s=0.5, grace_s=0.2)


@dataclass(frozen=True)
class Scene:
    """A repository with version 1 and 2, and a device that trusts it."""

    repository: repo.Repository
    device: Path
    root: Path

    def fetch(
        self, version: str = "1", *, repository: str | None = None, settings: Settings = PATIENCE
    ) -> str:
        return fetch(
            repository=repository or str(self.repository.public),
            root=self.root,
            trust=self.device / "trust",
            store=self.device / "store",
            bundle="tiny",
            version=version,
            settings=settings,
        ).digest

    def forget(self) -> None:
        shutil.rmtree(self.device, ignore_errors=True)


def _bundle(path: Path, version: str) -> Path:
    manifest = Manifest(
        name="tiny",
        version=version,
        inputs=(TensorSpec("x", "FP32", (-1, 4)),),
        outputs=(),
        artifacts=(Artifact("model.bin", "null", "null", "fp32", "null"),),
    )
    build(path, manifest, {"model.bin": b"weights", "notes.txt": version.encode()})
    return path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    repository = repo.init(tmp_path / "repository")
    for version in ("1", "2"):
        repo.publish(_bundle(tmp_path / f"{version}.farrier", version), repo=repository.folder)
        shutil.copytree(repository.public, tmp_path / f"public-{version}")
    shutil.copy(repository.root, tmp_path / "root.json")
    return Scene(repository, tmp_path / "device", tmp_path / "root.json")


def test_an_older_state_of_the_same_repository_is_refused(scene: Scene, tmp_path: Path) -> None:
    scene.fetch("1", repository=str(tmp_path / "public-1"))
    scene.fetch("2")
    with pytest.raises(TrustError, match=r"timestamp\.json is older than what this device has seen"):
        scene.fetch("1", repository=str(tmp_path / "public-1"))
    scene.fetch("1")  # an older version of the bundle is the publisher's own choice


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_an_older_role_under_a_newer_name_is_refused(scene: Scene, role: str) -> None:
    """Mix and match: the newest timestamp with a snapshot or target list of the state before."""
    newest = scene.repository.metadata / f"3.{role}.json"
    shutil.copy(scene.repository.metadata / f"2.{role}.json", newest)
    with pytest.raises(TrustError, match=f"{newest.name} is damaged or was exchanged"):
        scene.fetch("2")


def test_a_snapshot_rolled_back_under_a_stolen_timestamp_key_is_refused(scene: Scene) -> None:
    scene.fetch("2")
    state = signing.read_state(scene.repository)
    old = Metadata.from_bytes((scene.repository.metadata / "2.snapshot.json").read_bytes())
    forged = signing.renewed(
        replace(state, snapshot=old), ("timestamp",), scene.repository, datetime.now(timezone.utc)
    )
    (scene.repository.metadata / "timestamp.json").write_bytes(forged.timestamp.to_bytes())
    with pytest.raises(TrustError, match="rolled back or mixed"):
        scene.fetch("1")


def test_a_foreign_repository_is_refused(scene: Scene, tmp_path: Path) -> None:
    foreign = repo.init(tmp_path / "foreign")
    repo.publish(tmp_path / "1.farrier", repo=foreign.folder)
    with pytest.raises(TrustError, match=r"timestamp\.json is not signed by the keys this device trusts"):
        scene.fetch("1", repository=str(foreign.public))


def test_a_root_signed_by_a_stranger_is_refused(scene: Scene, tmp_path: Path) -> None:
    foreign = repo.init(tmp_path / "foreign")
    state = signing.read_state(foreign)
    forged = signing.renewed(state, ("root",), foreign, datetime.now(timezone.utc))
    (scene.repository.metadata / "2.root.json").write_bytes(forged.root.to_bytes())
    with pytest.raises(TrustError, match=r"2\.root\.json is not signed"):
        scene.fetch("1")


def test_a_flipped_byte_in_any_served_file_is_refused_and_the_file_is_named(scene: Scene) -> None:
    rng = random.Random(5)
    public = scene.repository.public
    needed = [
        *(public / "metadata" / name for name in ("timestamp.json", "3.snapshot.json", "3.targets.json")),
        *(public / "targets").glob("bundles/tiny/*.2.json"),
        *(public / "targets" / "parts").iterdir(),
    ]
    needed = [path for path in needed if path.read_bytes() != b"1"]  # version 1's own part is not fetched
    assert len(needed) == 6
    for path in needed:
        data = path.read_bytes()
        for position in rng.sample(range(len(data)), min(FLIPS, len(data))):
            altered = bytearray(data)
            altered[position] ^= 1
            path.write_bytes(altered)
            with pytest.raises(TrustError, match=re.escape(path.name)):
                scene.fetch("2")
            assert not list(scene.device.rglob("manifests"))
            scene.forget()
        path.write_bytes(data)
    assert load(scene.device / "store", scene.fetch("2")).manifest.version == "2"


@pytest.mark.parametrize(
    "pattern", ["metadata/timestamp.json", "metadata/3.*.json", "targets/parts/*", "targets/bundles/tiny/*"]
)
def test_a_file_cut_short_on_the_server_is_refused(scene: Scene, pattern: str) -> None:
    for path in scene.repository.public.glob(pattern):
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TrustError, match=r"damaged"):
        scene.fetch("2")


def test_oversized_files_are_refused_without_reading_them_whole(scene: Scene) -> None:
    timestamp = scene.repository.metadata / "timestamp.json"
    whole = timestamp.read_bytes()
    timestamp.write_bytes(whole + b" " * Settings.timestamp_max_bytes)
    with pytest.raises(TrustError, match=r"timestamp\.json is larger than it may be"):
        scene.fetch("2")
    timestamp.write_bytes(whole)
    for part in (scene.repository.public / "targets" / "parts").iterdir():
        with part.open("ab") as file:
            file.truncate(1 << 40)
    with pytest.raises(TrustError, match="larger than it may be"):
        scene.fetch("2")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    ],
    ids=["closed", "garbage", "busy", "cut short", "bad chunk", "redirect to a file"],
)
def test_a_server_that_breaks_off_is_worth_another_try(scene: Scene, answer: bytes) -> None:
    with _answering(lambda connection, ended: connection.sendall(answer)) as url, pytest.raises(TryAgain):
        scene.fetch("2", repository=url)


def test_a_silent_server_is_given_up(scene: Scene) -> None:
    with (
        _answering(lambda connection, ended: ended.wait(60)) as url,
        pytest.raises(TryAgain, match="timed out"),
    ):
        scene.fetch("2", repository=url)


def test_a_trickling_server_is_given_up(scene: Scene) -> None:
    def trickle(connection: socket.socket, ended: Event) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not ended.wait(0.05):
            connection.sendall(b" ")

    with _answering(trickle) as url, pytest.raises(TryAgain, match=r"only \d+ bytes in"):
        scene.fetch("2", repository=url)


def test_a_repository_made_by_others_is_read(shared_data: Path, tmp_path: Path) -> None:
    """tuf-on-ci's: ECDSA keys from hardware, a delegated role, unknown fields, empty signatures."""
    folder = shared_data / "tuf_static" / "tuf_conformance" / "static_data" / "tuf-on-ci-0.11"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    now = datetime.fromisoformat((folder / "faketime").read_text().strip())
    trust = tmp_path / "trust"
    trust.mkdir()
    client = Client(
        folder.as_uri(),
        root=folder / "initial_root.json",
        trust=trust,
        settings=replace(PATIENCE, reference_time=now),
    )
    target = client.describe((folder / "targetpath").read_text().strip())
    data = b"".join(client.chunks(target))
    (artifact,) = (folder / "targets" / "delegatedrole").iterdir()
    assert sha256(data).hexdigest() == artifact.name.partition(".")[0]
    assert {path.name for path in trust.glob("*.json")} >= {"root.json", "timestamp.json", "snapshot.json"}


@contextmanager
def _answering(answer: Callable[[socket.socket, Event], object]) -> Iterator[str]:
    """A server that reads each request and answers as told, until the block ends."""
    ended = Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        connection.recv(65536)
                        answer(connection, ended)
                    except OSError:
                        continue

        thread = Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            ended.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
