"""Make a repository, publish bundles into it, and keep its signatures fresh."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from farrier_contracts.bundle import Manifest, Part, verify
from farrier_contracts.bundle.store import extract
from farrier_contracts.errors import InputError
from farrier_contracts.files import undone_when_full, write_atomically

from . import signing
from .layout import ROLES, Lifetimes, Repository

if TYPE_CHECKING:
    from tuf.api.metadata import TargetFile  # pyright: ignore[reportPrivateImportUsage]


@dataclass(frozen=True)
class Published:
    """What a publication added; nothing where the same bundle had been published before."""

    name: str
    version: str
    digest: str
    parts_added: int
    bytes_added: int
    already_published: bool = False


def init(folder: Path, *, lifetimes: Lifetimes | None = None, now: datetime | None = None) -> Repository:
    """Make a repository with new keys and signed, empty metadata, whole or not at all; raises InputError."""
    lifetimes = (lifetimes or Lifetimes()).checked()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: choose a new folder for the repository")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    building = Repository(temporary)
    try:
        state = signing.first_state(signing.new_keys(building.keys), lifetimes, now or _now())
        write_atomically(temporary / "lifetimes.json", [Repository.lifetimes_bytes(lifetimes)])
        signing.write_state(building.metadata, state)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Repository(folder)


def publish(bundle: Path, *, repo: Path, now: datetime | None = None) -> Published:
    """Publish a bundle: its manifest as `bundles/<name>/<version>.json`, its parts as `parts/<sha256>`.

    Files come first, then targets, snapshot and timestamp, so that a client never sees half of it. Raises
    InputError where this version was published with other contents, BundleError for a damaged bundle, and
    FarrierError where another publisher is at work or the disk is full.
    """
    manifest = verify(bundle)
    repository = Repository(repo)
    with repository.locked():
        state = signing.read_state(repository)
        targets = state.targets.signed.targets
        target = targets.get(manifest_target(manifest.name, manifest.version))
        if target is not None:
            if target.hashes.get("sha256") != manifest.digest:
                raise InputError(
                    f"{manifest.name} {manifest.version} is already published with other contents: "
                    "build the bundle with a new version"
                )
            return Published(manifest.name, manifest.version, manifest.digest, 0, 0, already_published=True)
        new = {p.sha256: p for p in manifest.parts.values() if part_target(p.sha256) not in targets}
        _write_files(bundle, manifest, new, repository)
        added = _described(manifest, new)
        signing.write_state(
            repository.metadata, signing.with_targets(state, added, repository, now or _now())
        )
    size = sum(part.size for part in new.values())
    return Published(manifest.name, manifest.version, manifest.digest, len(new), size)


def refresh(repo: Path, *, now: datetime | None = None) -> dict[str, datetime]:
    """Sign the timestamp anew, and every other role past half its lifetime; return when each role expires.

    The root's key may be kept elsewhere: without it the root stays as it is. Raises InputError where another
    key is missing, FarrierError where a publisher is at work.
    """
    repository, now = Repository(repo), now or _now()
    with repository.locked():
        state = signing.read_state(repository)
        due = {
            role for role in ROLES if is_due(repository, role, getattr(state, role).signed.expires, now=now)
        }
        due |= {"timestamp"} | ({"snapshot"} if "targets" in due else set())
        if not signing.has_key(repository, "root"):
            due -= {"root"}
        state = signing.renewed(state, tuple(due), repository, now)
        signing.write_state(repository.metadata, state)
    return {role: getattr(state, role).signed.expires for role in ROLES}


def is_due(repository: Repository, role: str, expires: datetime, *, now: datetime) -> bool:
    """Say whether less than half of a role's lifetime is left."""
    return expires - now < timedelta(days=repository.lifetimes().days(role)) / 2


def manifest_target(name: str, version: str) -> str:
    """Return the TUF target path of a bundle's manifest."""
    return f"bundles/{name}/{version}.json"


def part_target(sha256: str) -> str:
    """Return the TUF target path of a part."""
    return f"parts/{sha256}"


def _write_files(bundle: Path, manifest: Manifest, new: dict[str, Part], repository: Repository) -> None:
    paths = {sha256: repository.target(part_target(sha256), sha256) for sha256 in new}
    written = tuple(paths.values())
    with undone_when_full(repository.folder, written):
        extract(bundle, lambda part: paths.pop(part.sha256, None))
        manifest_path = repository.target(manifest_target(manifest.name, manifest.version), manifest.digest)
        write_atomically(manifest_path, [manifest.to_bytes()])


def _described(manifest: Manifest, new: dict[str, Part]) -> dict[str, TargetFile]:
    from tuf.api.metadata import TargetFile  # pyright: ignore[reportPrivateImportUsage]

    path = manifest_target(manifest.name, manifest.version)
    added = {path: TargetFile(len(manifest.to_bytes()), {"sha256": manifest.digest}, path)}
    for sha256, part in new.items():
        added[part_target(sha256)] = TargetFile(part.size, {"sha256": sha256}, part_target(sha256))
    return added


def _now() -> datetime:
    return datetime.now(timezone.utc)
