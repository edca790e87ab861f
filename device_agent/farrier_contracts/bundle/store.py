"""A folder of bundles taken apart: parts by digest, so that an update brings only what changed.

STORE/parts/<sha256>               the bytes of one part
STORE/manifests/<sha256>.json      a manifest; its digest is the bundle's identity
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import BundleError
from .container import CHUNK_BYTES, read_manifest, read_parts
from .manifest import Manifest


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
            digest, size = hashlib.sha256(), 0
            with self.part(name).open("rb") as file:
                while True:
                    chunk = file.read(CHUNK_BYTES)
                    if not chunk:
                        break
                    digest.update(chunk)
                    size += len(chunk)
            if (digest.hexdigest(), size) != (part.sha256, part.size):
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

    Parts already there are not written again; the manifest is written last, so a bundle that can be loaded is
    whole. Raises BundleError.
    """
    manifest = read_manifest(bundle)
    with bundle.open("rb") as file:
        writer = _PartWriter(store)
        try:
            for _name, part, chunk in read_parts(file, bundle):
                writer.write(part.sha256, chunk)
        except BaseException:
            writer.abort()
            raise
        writer.finish()
    for part in manifest.parts.values():
        if part.size == 0:
            write_atomically(part_path(store, part.sha256), b"")
    write_atomically(manifest_path(store, manifest.digest), manifest.to_bytes())
    return StoredBundle(store, manifest)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and see it to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _PartWriter:
    """Writes the stream of parts to temporary files; a part gets its name once it was read to its end."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._sha256 = ""
        self._file = None
        self._temporary = store

    def write(self, sha256: str, chunk: bytes) -> None:
        if sha256 != self._sha256:
            self.finish()
            self._sha256 = sha256
            target = part_path(self._store, sha256)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._temporary = target.with_name(f".{sha256}.{os.getpid()}.tmp")
            self._file = None if target.is_file() else self._temporary.open("wb")
        if self._file is not None:
            self._file.write(chunk)

    def finish(self) -> None:
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._temporary.replace(part_path(self._store, self._sha256))
        self._file = None

    def abort(self) -> None:
        if self._file is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            self._file = None
