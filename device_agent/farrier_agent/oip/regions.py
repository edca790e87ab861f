"""System shared memory: tensors that never pass through a socket.

A region is read and written with pread and pwrite instead of being mapped: one copy, but a client that shortens
its region gets an error, where touching a mapping would end this process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from farrier_contracts.errors import InputError

from .http import NotFoundError

FOLDER = Path("/dev/shm")
MAX_REGIONS = 256


@dataclass(frozen=True)
class Region:
    """A registered part of a shared-memory object, kept open."""

    name: str
    key: str
    offset: int
    byte_size: int
    fd: int

    def to_document(self) -> Dict[str, Any]:
        """Return the protocol's form."""
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size}


class Regions:
    """The registered regions of one server."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._folder = folder
        self._regions: Dict[str, Region] = {}

    def register(self, name: str, key: Any, offset: Any, byte_size: Any) -> None:
        """Open a region; raises InputError where it does not exist, is too short or the name is taken."""
        if name in self._regions:
            raise InputError(f"shared memory region {name!r} is registered already: unregister it first")
        if len(self._regions) >= MAX_REGIONS:
            raise InputError(f"{MAX_REGIONS} shared memory regions are registered already: unregister some")
        file = key[1:] if isinstance(key, str) and key.startswith("/") else key
        if (
            not isinstance(file, str)
            or not file
            or len(file) > 255
            or "/" in file
            or "\0" in file
            or file in (".", "..")
        ):
            raise InputError(f"shared memory key {key!r:.80} is not the name of an object")
        if type(offset) is not int or type(byte_size) is not int or offset < 0 or byte_size <= 0:
            raise InputError("a shared memory region needs an offset of at least 0 and a byte_size above 0")
        try:
            fd = os.open(self._folder / file, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise InputError(f"shared memory object {key!r} cannot be opened: {error.strerror}") from None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size < offset + byte_size:
            os.close(fd)
            raise InputError(f"shared memory object {key!r} is smaller than offset and byte_size say")
        self._regions[name] = Region(name, key, offset, byte_size, fd)

    def unregister(self, name: Optional[str] = None) -> None:
        """Close one region, or all; an unknown one is no error, as in the protocol."""
        for region in [r for r in self._regions.values() if name in (None, r.name)]:
            del self._regions[region.name]
            os.close(region.fd)

    def status(self, name: Optional[str] = None) -> List[Dict[str, Any]]:
        """Return one region or all; raises NotFoundError where the one is unknown."""
        if name is not None:
            self._find(name)
        return [r.to_document() for r in self._regions.values() if name in (None, r.name)]

    def read(self, name: str, offset: int, size: int) -> bytearray:
        """Return bytes of a region; raises InputError where they lie outside it."""
        region = self._inside(name, offset, size)
        data = bytearray(size)
        if os.preadv(region.fd, [data], region.offset + offset) != size:
            raise InputError(f"shared memory region {name!r} has become shorter than it was registered")
        return data

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put bytes into a region; raises InputError where they do not fit."""
        region = self._inside(name, offset, len(data))
        if os.fstat(region.fd).st_size < region.offset + offset + len(data):
            raise InputError(f"shared memory region {name!r} has become shorter than it was registered")
        os.pwrite(region.fd, data, region.offset + offset)

    def _inside(self, name: str, offset: int, size: int) -> Region:
        region = self._find(name)
        if offset < 0 or size < 0 or offset + size > region.byte_size:
            raise InputError(f"{size} bytes at {offset} lie outside shared memory region {name!r}")
        return region

    def _find(self, name: str) -> Region:
        try:
            return self._regions[name]
        except KeyError:
            raise NotFoundError(f"shared memory region {name!r:.80} is not registered") from None
