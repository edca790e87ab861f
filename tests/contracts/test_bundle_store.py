from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from farrier_contracts.bundle import Manifest, build, load, unpack
from farrier_contracts.bundle.store import manifest_path
from farrier_contracts.errors import BundleError, FarrierError

KILLS = 12
PART_BYTES = 4 << 20
UNPACK = """
import sys
from pathlib import Path
from farrier_contracts.bundle import unpack
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_bundle_goes_in_and_comes_out(bundle: Path, tmp_path: Path, parts: dict[str, bytes]) -> None:
    stored = unpack(bundle, tmp_path / "store")
    stored.verify()
    again = load(tmp_path / "store", stored.digest)
    assert again == stored
    assert {name: again.part(name).read_bytes() for name in parts} == parts
    assert len(list((tmp_path / "store" / "parts").iterdir())) == len(set(parts.values()))


def written(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written, and not when it is read."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns


def test_only_missing_and_damaged_parts_are_written(
    bundle: Path, tmp_path: Path, manifest: Manifest, parts: dict[str, bytes]
) -> None:
    store = tmp_path / "store"
    first = unpack(bundle, store)
    kept = written(first.part("model.bin"))
    first.part("golden.npz").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"'copy\.bin' is damaged"):
        first.verify()
    newer = tmp_path / "newer.farrier"
    build(newer, replace(manifest, version="2"), {**parts, "notes.txt": b"new"})
    second = unpack(newer, store)
    second.verify()
    assert written(second.part("model.bin")) == kept
    assert second.part("notes.txt").read_bytes() == b"new"


def test_an_absent_or_altered_manifest_or_part_is_named(bundle: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    stored = unpack(bundle, store)
    with pytest.raises(BundleError, match="is not in"):
        load(store, "0" * 64)
    stored.part("model.bin").unlink()
    with pytest.raises(BundleError, match=r"'model\.bin' is not on this device"):
        stored.verify()
    path = manifest_path(store, stored.digest)
    path.write_bytes(path.read_bytes().replace(b"tiny", b"tidy"))
    with pytest.raises(BundleError, match=f"{path} is damaged"):
        load(store, stored.digest)


def test_a_killed_unpack_leaves_no_half_bundle(tmp_path: Path, manifest: Manifest, eventually) -> None:
    """Kill at a random write: a bundle that can be loaded is whole, and the next unpack repairs and tidies."""
    rng = random.Random(7)
    path, store = tmp_path / "big.farrier", tmp_path / "store"
    contents = {f"part-{i}.bin": rng.randbytes(PART_BYTES) for i in range(3)}
    digest = build(path, manifest, {**contents, "model.bin": b"m", "golden.npz": b"g"}).digest
    for _ in range(KILLS):
        goal = rng.randrange(3 * PART_BYTES)
        with subprocess.Popen([sys.executable, "-c", UNPACK, path, store]) as child:
            eventually(
                lambda child=child, goal=goal: child.poll() is not None or _written(store, child.pid) >= goal
            )
            child.kill()
        if manifest_path(store, digest).exists():
            load(store, digest).verify()
            manifest_path(store, digest).unlink()
        for part in (store / "parts").glob("[0-9a-f]*"):
            assert hashlib.sha256(part.read_bytes()).hexdigest() == part.name
            part.unlink()
    unpack(path, store).verify()
    assert not list(store.rglob("*.tmp"))


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tiny disk needs root")
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, manifest: Manifest) -> None:
    store, path = tmp_path / "disk", tmp_path / "big.farrier"
    store.mkdir()
    rng = random.Random(1)
    contents = {f"part-{i}.bin": rng.randbytes(200_000) for i in range(8)}
    build(path, manifest, {**contents, "model.bin": b"m", "golden.npz": b"g"})
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", store], check=False)
    if mounted.returncode != 0:
        pytest.skip("this machine does not let root mount")
    try:
        with pytest.raises(FarrierError, match="is full: free some space"):
            unpack(path, store)
        assert [entry for entry in store.rglob("*") if entry.is_file()] == []
    finally:
        subprocess.run(["umount", store], check=True)


def _written(store: Path, pid: int) -> int:
    """Return how many bytes this process has written so far, temporary files included."""
    total = 0
    for path in (store / "parts").glob("*"):
        if not path.name.endswith(".tmp") or path.name.endswith(f".{pid}.tmp"):
            try:
                total += path.stat().st_size
            except FileNotFoundError:
                continue
    return total
