"""The bundle file: a stored zip in exactly one byte form.

Any zip tool can list and unpack it. Farrier itself writes and reads it strictly: members uncompressed,
`manifest.json` first, then the parts in the order of their names, fixed dates, nothing between them and nothing
after. The manifest therefore determines every other byte, and a reader compares them all: a flip anywhere is
found.
Format: PKWARE APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16 (no zip64: a bundle stays below 4 GiB).
"""

from __future__ import annotations

import hashlib
import os
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Iterator, Mapping, Union

from ..errors import BundleError
from . import names
from .fields import BUNDLE_MAX_BYTES
from .manifest import MANIFEST_MAX_BYTES, Manifest, Part

MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 1 << 20

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_ZIP_VERSION = 20
_UNIX_ZIP_VERSION = 3 << 8 | _ZIP_VERSION
_DATE_1980_01_01 = 0x21
_MODE = 0o100644 << 16

Source = Union[bytes, Path]


@dataclass(frozen=True)
class _Member:
    name: str
    crc: int
    size: int
    offset: int

    def local_header(self) -> bytes:
        name = self.name.encode()
        return (
            _LOCAL.pack(
                b"PK\3\4",
                _ZIP_VERSION,
                0,
                0,
                0,
                _DATE_1980_01_01,
                self.crc,
                self.size,
                self.size,
                len(name),
                0,
            )
            + name
        )

    def central_header(self) -> bytes:
        name = self.name.encode()
        fixed = (b"PK\1\2", _UNIX_ZIP_VERSION, _ZIP_VERSION, 0, 0, 0, _DATE_1980_01_01, self.crc)
        return _CENTRAL.pack(*fixed, self.size, self.size, len(name), 0, 0, 0, 0, _MODE, self.offset) + name

    @property
    def end(self) -> int:
        return self.offset + len(self.local_header()) + self.size


def build(path: Path, manifest: Manifest, parts: Mapping[str, Source]) -> Manifest:
    """Write a bundle file at `path`, whole or not at all, and return the manifest with its parts filled in.

    `parts` maps each part's name to its bytes or to the file that holds them. Raises BundleError.
    """
    digests = {names.part(name): _digest(source) for name, source in parts.items()}
    manifest = replace(manifest, parts=dict(sorted(digests.items())))
    Manifest.from_bytes(manifest.to_bytes(), source=str(path))  # what we write, we can read
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            _write(file, manifest, parts)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def read_manifest(path: Path) -> Manifest:
    """Return a bundle file's manifest without reading the parts; raises BundleError."""
    with open_file(path) as file:
        return _read_manifest(file, path)[0]


def verify(path: Path) -> Manifest:
    """Check every byte of a bundle file and return its manifest; BundleError names what is damaged."""
    with open_file(path) as file:
        for _ in read_parts(file, path):
            pass
        file.seek(0)
        return _read_manifest(file, path)[0]


def read_parts(file: BinaryIO, path: Path) -> Iterator[tuple[str, Part, bytes]]:
    """Yield (name, part, chunk of its bytes) through the whole file, checking every byte on the way.

    Every part yields at least one chunk, an empty part an empty one. A part's chunks are only trustworthy once
    the next part or the end has been reached. Raises BundleError.
    """
    manifest, first = _read_manifest(file, path)
    members = [first]
    for name, part in sorted(manifest.parts.items()):
        header = file.read(_LOCAL.size + len(name.encode()))
        crc = _LOCAL.unpack(header[: _LOCAL.size])[6] if len(header) >= _LOCAL.size else 0
        member = _Member(name, crc, part.size, members[-1].end)
        if header != member.local_header():
            raise BundleError(f"{path}: the header of {name!r} is damaged: fetch or build the bundle again")
        if part.size == 0:
            yield name, part, b""
        digest, checksum, left = hashlib.sha256(), 0, part.size
        while left:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise BundleError(f"{path} is cut short inside {name!r}: fetch or build the bundle again")
            digest.update(chunk)
            checksum = zlib.crc32(chunk, checksum)
            left -= len(chunk)
            yield name, part, chunk
        if digest.hexdigest() != part.sha256 or checksum != crc:
            raise BundleError(
                f"{path}: {name!r} is damaged (its digest differs): fetch or build the bundle again"
            )
        members.append(member)
    if file.read(len(_directory(members)) + 1) != _directory(members):
        raise BundleError(f"{path}: the directory at its end is damaged: fetch or build the bundle again")


def _read_manifest(file: BinaryIO, path: Path) -> tuple[Manifest, _Member]:
    header = file.read(_LOCAL.size + len(MANIFEST_NAME))
    if len(header) < _LOCAL.size + len(MANIFEST_NAME) or header[:4] != b"PK\3\4":
        raise BundleError(f"{path} is not a Farrier bundle")
    crc, size = _LOCAL.unpack(header[: _LOCAL.size])[6:8]
    member = _Member(MANIFEST_NAME, crc, size, 0)
    if header != member.local_header() or size > MANIFEST_MAX_BYTES:
        raise BundleError(
            f"{path}: the header of {MANIFEST_NAME!r} is damaged, or this is not a Farrier bundle"
        )
    data = file.read(size)
    if len(data) != size:
        raise BundleError(f"{path} is cut short inside {MANIFEST_NAME!r}: fetch or build the bundle again")
    if zlib.crc32(data) != crc:
        raise BundleError(f"{path}: {MANIFEST_NAME!r} is damaged: fetch or build the bundle again")
    return Manifest.from_bytes(data, source=f"{path}: {MANIFEST_NAME}"), member


def _write(file: BinaryIO, manifest: Manifest, parts: Mapping[str, Source]) -> None:
    members: list[_Member] = []
    sources: dict[str, Source] = {MANIFEST_NAME: manifest.to_bytes()}
    sources.update(sorted(parts.items()))
    for name, source in sources.items():
        crc, size = 0, 0
        for chunk in _chunks(source):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        member = _Member(name, crc, size, members[-1].end if members else 0)
        if member.end > BUNDLE_MAX_BYTES:
            raise BundleError(
                f"the bundle would be larger than {BUNDLE_MAX_BYTES} bytes: shrink the model first"
            )
        file.write(member.local_header())
        for chunk in _chunks(source):
            file.write(chunk)
        members.append(member)
    file.write(_directory(members))


def _directory(members: list[_Member]) -> bytes:
    central = b"".join(member.central_header() for member in members)
    count = len(members)
    return central + _END.pack(b"PK\5\6", 0, 0, count, count, len(central), members[-1].end, 0)


def _digest(source: Source) -> Part:
    digest, size = hashlib.sha256(), 0
    for chunk in _chunks(source):
        digest.update(chunk)
        size += len(chunk)
    return Part(digest.hexdigest(), size)


def _chunks(source: Source) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    try:
        with source.open("rb") as file:
            while True:
                chunk = file.read(CHUNK_BYTES)
                if not chunk:
                    return
                yield chunk
    except FileNotFoundError:
        raise BundleError(f"{source} does not exist") from None


def open_file(path: Path) -> BinaryIO:
    """Open a bundle file; raises BundleError where that is not possible."""
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise BundleError(f"{path} does not exist") from None
    except (IsADirectoryError, PermissionError) as error:
        raise BundleError(f"{path} cannot be read: {error.strerror}") from None
