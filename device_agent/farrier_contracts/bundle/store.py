"""A folder of bundles taken apart: parts by digest, so that an update brings only what changed.

STORE/parts/<sha256>               the bytes of one part
STORE/manifests/<sha256>.json      a manifest; its digest is the bundle's identity

Files get their names only when whole, and a manifest only after its parts, so a bundle that can be loaded is
whole. What a killed process leaves behind are hidden temporary files; the next writer sweeps them away.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Callable, Dict, Optional

from ..errors import BundleError
from ..files import undone_when_full, write_atomically
from .container import CHUNK_BYTES, open_file, read_manifest, read_parts
from .manifest import Manifest, Part


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in a store, ready to be run."""

    store: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return self.manifest.digest

    def part(self, name: str) -> Path:
        """Return the file that holds the part called `name`; raises BundleError where it is absent."""
        path = part_path(self.store, self.manifest.parts[name].sha256)
        if not path.is_file():
            raise BundleError(
                f"{self.manifest.name} {self.manifest.version}: part {name!r} is not on this device"
            )
        return path

    def verify(self) -> None:
        """Check every part's size and digest; raises BundleError naming the damaged part."""
        for name, part in self.manifest.parts.items():
            if not _is_sound(self.part(name), part):
                raise BundleError(f"{self.manifest.name} {self.manifest.version}: part {name!r} is damaged")


def part_path(store: Path, sha256: str) -> Path:
    """Return where a part with this digest lies."""
    return store / "parts" / sha256


def manifest_path(store: Path, digest: str) -> Path:
    """Return where the manifest with this digest lies."""
    return store / "manifests" / f"{digest}.json"


def load(store: Path, digest: str) -> StoredBundle:
    """Return the bundle with this identity; raises BundleError where it is absent or altered."""
    path = manifest_path(store, digest)
    try:
        data = path.read_bytes()
    except OSError:
        raise BundleError(f"bundle {digest[:12]} is not in {store}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise BundleError(f"{path} is damaged")
    return StoredBundle(store, Manifest.from_bytes(data, source=str(path)))


def unpack(bundle: Path, store: Path) -> StoredBundle:
    """Check a bundle file, put its parts and manifest into the store, and return it.

    Parts already there and sound are not written again; where the disk is full, what this call wrote is taken
    away again. Raises BundleError, or FarrierError for a full disk.
    """
    absent = missing(read_manifest(bundle), store).values()
    wanted = {part.sha256: part_path(store, part.sha256) for part in absent}
    with undone_when_full(store, tuple(wanted.values())):
        manifest = extract(bundle, lambda part: wanted.pop(part.sha256, None))  # equal parts are written once
        return commit(manifest, store)


def extract(bundle: Path, place: Callable[[Part], Optional[Path]]) -> Manifest:
    """Check a bundle file and write each part to the path that `place` gives for it, None for nowhere.

    A part has its name only once it was checked to its last byte. Raises BundleError.
    """
    with open_file(bundle) as file:
        for (_name, part), items in groupby(read_parts(file, bundle), key=itemgetter(0, 1)):
            path = place(part)
            if path is not None:
                write_atomically(path, (chunk for _, _, chunk in items))
    return read_manifest(bundle)


def missing(manifest: Manifest, store: Path) -> Dict[str, Part]:
    """Return the parts, by name, that the store lacks or holds damaged; equal parts are named once."""
    absent = {
        part.sha256: (name, part)
        for name, part in manifest.parts.items()
        if not _is_sound(part_path(store, part.sha256), part)
    }
    return dict(absent.values())


def commit(manifest: Manifest, store: Path) -> StoredBundle:
    """Make a bundle loadable: write its manifest, after its parts; raises BundleError where one is absent."""
    bundle = StoredBundle(store, manifest)
    for name in manifest.parts:
        bundle.part(name)
    write_atomically(manifest_path(store, bundle.digest), [manifest.to_bytes()])
    return bundle


def _is_sound(path: Path, part: Part) -> bool:
    digest = hashlib.sha256()
    try:
        if path.stat().st_size != part.size:
            return False
        with path.open("rb") as file:
            for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
                digest.update(chunk)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == part.sha256
