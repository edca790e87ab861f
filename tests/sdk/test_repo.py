from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata
from tuf.ngclient import Updater

from farrier import repo
from farrier.cli import main
from farrier_contracts.bundle import Artifact, Manifest, build
from farrier_contracts.errors import BundleError, FarrierError, InputError, UsageError
from farrier_contracts.tensors import TensorSpec

KILLS = 6  # a publication writes two parts, a manifest, targets, snapshot, timestamp
PUBLISH = """
import sys
from pathlib import Path
from farrier import repo
print("ready", flush=True)
repo.publish(Path(sys.argv[1]), repo=Path(sys.argv[2]))
"""
SERVE = (sys.executable, "-c", "import sys; from farrier.cli import main; sys.exit(main())", "repo", "serve")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Path]:
    def made(version: str, weights: bytes = b"weights") -> Path:
        path = tmp_path / f"{version}.farrier"
        manifest = Manifest(
            name="tiny",
            version=version,
            inputs=(TensorSpec("x", "FP32", (-1, 4)),),
            outputs=(),
            artifacts=(Artifact("model.bin", "null", "null", "fp32", "null"),),
        )
        build(path, manifest, {"model.bin": weights, "notes.txt": version.encode()})
        return path

    return made


@pytest.fixture
def repository(tmp_path: Path) -> repo.Repository:
    return repo.init(tmp_path / "repository")


def test_keys_are_private_and_one_per_role(repository: repo.Repository) -> None:
    assert repository.keys.stat().st_mode & 0o777 == 0o700
    keys = sorted(repository.keys.iterdir())
    assert [key.name for key in keys] == ["root.pem", "snapshot.pem", "targets.pem", "timestamp.pem"]
    assert {key.stat().st_mode & 0o777 for key in keys} == {0o600}
    assert len({key.read_bytes() for key in keys}) == 4
    assert not [path for path in repository.public.rglob("*") if b"PRIVATE" in _bytes(path)]


def test_any_tuf_client_can_read_it(repository: repo.Repository, make: Callable, tmp_path: Path) -> None:
    done = repo.publish(make("1"), repo=repository.folder)
    assert (done.parts_added, done.bytes_added, done.already_published) == (2, 8, False)
    with repo.RepositoryServer(repository.folder) as server:
        for name in ("client", "targets"):
            (tmp_path / name).mkdir()
        updater = Updater(
            str(tmp_path / "client"),
            f"{server.url}/metadata/",
            str(tmp_path / "targets"),
            f"{server.url}/targets/",
            bootstrap=repository.root.read_bytes(),
        )
        info = updater.get_targetinfo("bundles/tiny/1.json")
        assert info is not None
        manifest = Manifest.from_bytes(Path(updater.download_target(info)).read_bytes())
        assert manifest.digest == done.digest
        for part in manifest.parts.values():
            part_info = updater.get_targetinfo(f"parts/{part.sha256}")
            assert part_info is not None
            assert part_info.length == Path(updater.download_target(part_info)).stat().st_size


def test_a_published_version_is_never_replaced(repository: repo.Repository, make: Callable) -> None:
    first = repo.publish(make("1"), repo=repository.folder)
    before = _state(repository)
    assert repo.publish(make("1"), repo=repository.folder) == replace(
        first, parts_added=0, bytes_added=0, already_published=True
    )
    with pytest.raises(
        InputError, match="already published with other contents: build the bundle with a new version"
    ):
        repo.publish(make("1", b"other"), repo=repository.folder)
    assert _state(repository) == before
    assert repo.publish(make("2"), repo=repository.folder).parts_added == 1  # the weights are there already


def test_a_damaged_bundle_is_refused_and_leaves_nothing(repository: repo.Repository, make: Callable) -> None:
    before = _state(repository)
    path = make("1")
    path.write_bytes(path.read_bytes().replace(b"weights", b"Weights"))
    with pytest.raises(BundleError, match=r"'model\.bin' is damaged"):
        repo.publish(path, repo=repository.folder)
    assert _state(repository) == before


def test_init_refuses_a_folder_in_use_and_leaves_it(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(InputError, match="not empty"):
        repo.init(tmp_path / "used")
    with pytest.raises(InputError, match="timestamp_days must be 1 to"):
        repo.init(tmp_path / "new", lifetimes=repo.Lifetimes(timestamp_days=0))
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "used"]


def test_two_publishers_do_not_meet(repository: repo.Repository, make: Callable) -> None:
    with repository.locked(), pytest.raises(FarrierError, match="another publisher is working"):
        repo.publish(make("1"), repo=repository.folder)
    repo.publish(make("1"), repo=repository.folder)


def test_refresh_renews_what_is_past_half_its_life(repository: repo.Repository) -> None:
    now = datetime.now(timezone.utc)
    lifetimes = repository.lifetimes()
    soon = repo.refresh(repository.folder, now=now + timedelta(days=1))
    assert soon["timestamp"] > now + timedelta(days=lifetimes.timestamp_days)
    assert sorted(path.name for path in repository.metadata.iterdir()) == [
        "1.root.json",
        "1.snapshot.json",
        "1.targets.json",
        "timestamp.json",
    ]
    late = now + timedelta(days=lifetimes.root_days // 2 + 1)
    expiries = repo.refresh(repository.folder, now=late)
    for role, expires in expiries.items():
        assert expires > late + timedelta(days=lifetimes.days(role) / 2), role
    old, new = (Metadata.from_file(str(repository.metadata / f"{n}.root.json")) for n in (1, 2))
    old.signed.verify_delegate("root", new.signed_bytes, new.signatures)


def test_the_root_key_may_be_kept_elsewhere(
    repository: repo.Repository, make: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository.keys / "root.pem").unlink()
    repo.publish(make("1"), repo=repository.folder)
    assert main(["repo", "refresh", str(repository.folder)]) == 0
    assert capsys.readouterr().err == ""
    late = datetime.now(timezone.utc) + timedelta(days=600)
    expiries = repo.refresh(repository.folder, now=late)
    assert repo.is_due(repository, "root", expiries["root"], now=late)
    assert expiries["timestamp"] > late


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda r: (r.keys / "targets.pem").unlink(), r"targets\.pem is missing"),
        (lambda r: (r.keys / "snapshot.pem").write_text("x"), r"snapshot\.pem is damaged"),
        (lambda r: (r.metadata / "timestamp.json").write_text("{"), r"timestamp\.json is damaged"),
        (lambda r: (r.metadata / "1.targets.json").unlink(), r"1\.targets\.json is missing"),
        (lambda r: (r.folder / "lifetimes.json").write_text('{"x": 1}'), r"lifetimes\.json is damaged"),
        (lambda r: shutil.rmtree(r.folder), "is not a repository"),
    ],
)
def test_a_damaged_repository_is_one_sentence(
    repository: repo.Repository, make: Callable, damage: Callable, sentence: str
) -> None:
    damage(repository)
    with pytest.raises(InputError, match=sentence):
        repo.publish(make("1"), repo=repository.folder)


def test_a_killed_publisher_leaves_a_state_that_clients_can_use(
    repository: repo.Repository, make: Callable, tmp_path: Path, eventually: Callable
) -> None:
    """kill -9 after each further file; clients see the old state or the new one, and publishing again works."""
    repo.publish(make("1"), repo=repository.folder)
    pristine, bundle = tmp_path / "pristine", make("2", random.Random(1).randbytes(1 << 20))
    shutil.copytree(repository.folder, pristine)
    before = _files(repository)
    for extra in range(KILLS):
        with subprocess.Popen([sys.executable, "-c", PUBLISH, bundle, repository.folder], stdout=-1) as child:
            assert child.stdout is not None
            child.stdout.readline()
            eventually(
                lambda child=child, goal=before + extra: (
                    child.poll() is not None or _files(repository) >= goal
                )
            )
            child.kill()
        assert _published_versions(repository, tmp_path / f"killed-{extra}") in (("1",), ("1", "2"))
        repo.publish(bundle, repo=repository.folder)
        assert _published_versions(repository, tmp_path / f"again-{extra}") == ("1", "2")
        repo.publish(make("3"), repo=repository.folder)
        assert not [path for path in repository.metadata.iterdir() if path.suffix == ".tmp"]
        shutil.rmtree(repository.folder)
        shutil.copytree(pristine, repository.folder)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metadata",
        "/metadata/",
        "/metadata/none.json",
        "/../keys/root.pem",
        "/%2e%2e/keys/root.pem",
        "/metadata/..%2f..%2fkeys/root.pem",
        "//etc/passwd",
        "/metadata/%00",
        "/.hidden",
        "/link",
        "/" + "x" * 5000,
    ],
)
def test_the_server_gives_out_nothing_but_public_files(repository: repo.Repository, path: str) -> None:
    (repository.public / ".hidden").write_text("x")
    (repository.public / "link").symlink_to(repository.keys / "root.pem")
    with repo.RepositoryServer(repository.folder) as server:
        status, body = _get(server.url, path)
        assert status == 404
        assert b"PRIVATE" not in body
        assert _get(server.url, "/metadata/timestamp.json?x=1") == (
            200,
            (repository.metadata / "timestamp.json").read_bytes(),
        )


def test_the_server_says_where_it_is_and_ends_cleanly(repository: repo.Repository) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen(
            [*SERVE, repository.folder, "--port", "0"], stdout=-1, stderr=-1, text=True
        ) as child:
            assert child.stdout is not None and child.stderr is not None
            url = child.stdout.readline().strip()
            assert _get(url, "/metadata/timestamp.json")[0] == 200
            child.send_signal(number)
            assert child.wait(30) == 0
            assert child.stdout.read() == ""
            assert child.stderr.read() == f"farrier repo: serving {repository.folder} at\n"


def test_a_port_in_use_is_one_sentence(repository: repo.Repository) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use"):
            repo.RepositoryServer(repository.folder, port=port)


def test_the_commands(tmp_path: Path, make: Callable, capsys: pytest.CaptureFixture[str]) -> None:
    folder, bundle = str(tmp_path / "r"), str(make("1"))
    assert main(["repo", "init", folder, "--timestamp-days", "3"]) == 0
    assert "1.root.json" in capsys.readouterr().out
    assert main(["repo", "publish", bundle, "--repo", folder, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parts_added"] == 2
    assert main(["repo", "publish", bundle, "--repo", folder]) == 0
    assert "tiny@1 was already published" in capsys.readouterr().out
    assert main(["repo", "refresh", folder, "--json"]) == 0
    expires = datetime.fromisoformat(json.loads(capsys.readouterr().out)["timestamp"])
    assert expires - datetime.now(timezone.utc) < timedelta(days=3)
    for wrong in (
        ["init", folder],
        ["publish", "absent", "--repo", folder],
        ["serve", str(tmp_path / "none")],
    ):
        assert main(["repo", *wrong]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)


def _get(url: str, path: str) -> tuple[int, bytes]:
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _published_versions(repository: repo.Repository, trust: Path) -> tuple[str, ...]:
    """Ask a client that has never been here; every metadata and target file must be whole."""
    trust.mkdir()
    with repo.RepositoryServer(repository.folder) as server:
        updater = Updater(
            str(trust),
            f"{server.url}/metadata/",
            str(trust),
            f"{server.url}/targets/",
            bootstrap=repository.root.read_bytes(),
        )
        versions = []
        for version in ("1", "2"):
            info = updater.get_targetinfo(f"bundles/tiny/{version}.json")
            if info is not None:
                manifest = Manifest.from_bytes(Path(updater.download_target(info)).read_bytes())
                for part in manifest.parts.values():
                    part_info = updater.get_targetinfo(f"parts/{part.sha256}")
                    assert part_info is not None
                    updater.download_target(part_info)
                versions.append(version)
    return tuple(versions)


def _files(repository: repo.Repository) -> int:
    return sum(path.is_file() for path in repository.public.rglob("*"))


def _state(repository: repo.Repository) -> dict[Path, bytes]:
    return {path: _bytes(path) for path in repository.public.rglob("*")}


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""
