"""Read flatbuffers that may be damaged or hostile: every offset is checked before it is followed.

Layout: https://flatbuffers.dev/internals (tables with vtables, vectors, strings; little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


class DamagedError(ValueError):
    """An offset or a length points outside of the file."""


@dataclass(frozen=True)
class Scalar:
    """How a number is stored."""

    code: str  # of the struct module
    size: int  # bytes


INT8, UINT8 = Scalar("<b", 1), Scalar("<B", 1)
INT32, UINT32 = Scalar("<i", 4), Scalar("<I", 4)
UINT64, FLOAT32 = Scalar("<Q", 8), Scalar("<f", 4)


@dataclass(frozen=True)
class Table:
    """A table at a position of the buffer; its fields are numbered by their slot in the schema."""

    data: bytes
    position: int

    @classmethod
    def root(cls, data: bytes) -> Table:
        """Return the table that the file starts with; raises DamagedError."""
        return cls(data, _read(data, 0, UINT32))

    def number(self, slot: int, kind: Scalar, default: int | float = 0) -> int | float:
        """Return a number, or its default where the file leaves it out."""
        at = self._field(slot)
        return default if at is None else _read(self.data, at, kind)

    def integer(self, slot: int, kind: Scalar = INT32, default: int = 0) -> int:
        """Return a whole number."""
        return int(self.number(slot, kind, default))

    def table(self, slot: int) -> Table | None:
        """Return the table that a field points to."""
        at = self._field(slot)
        return None if at is None else Table(self.data, at + _read(self.data, at, UINT32))

    def tables(self, slot: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        start, count = self._vector(slot, 4)
        for index in range(count):
            at = start + 4 * index
            yield Table(self.data, at + _read(self.data, at, UINT32))

    def bytes(self, slot: int) -> memoryview:
        """Return a vector of bytes, or a string, without a copy."""
        start, count = self._vector(slot, 1)
        return memoryview(self.data)[start : start + count]

    def array(self, slot: int, dtype: str) -> np.ndarray:
        """Return a vector of numbers; absent is empty."""
        kind = np.dtype(dtype)
        start, count = self._vector(slot, kind.itemsize)
        return np.frombuffer(self.data, kind, count, start) if count else np.zeros(0, kind)

    def text(self, slot: int) -> str:
        """Return a string; what is not UTF-8 is replaced."""
        return bytes(self.bytes(slot)).decode("utf-8", "replace")

    def has(self, slot: int) -> bool:
        """Say whether the file holds this field."""
        return self._field(slot) is not None

    def _field(self, slot: int) -> int | None:
        vtable = self.position - _read(self.data, self.position, INT32)
        size = _read(self.data, vtable, Scalar("<H", 2))
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return None
        offset = _read(self.data, vtable + entry, Scalar("<H", 2))
        return self.position + offset if offset else None

    def _vector(self, slot: int, item: int) -> tuple[int, int]:
        at = self._field(slot)
        if at is None:
            return 0, 0
        start = at + _read(self.data, at, UINT32)
        count = _read(self.data, start, UINT32)
        if start + 4 + count * item > len(self.data):
            raise DamagedError("a vector reaches beyond the end of the file")
        return start + 4, count


def _read(data: bytes, at: int, kind: Scalar) -> int:
    if at < 0 or at + kind.size > len(data):
        raise DamagedError("an offset points outside of the file")
    return struct.unpack_from(kind.code, data, at)[0]
