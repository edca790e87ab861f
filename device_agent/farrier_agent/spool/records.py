"""The bytes of a segment: a header with both clocks, then records of points, each with its length and CRC-32.

    header   "FSP1", monotonic and wall time in ns (2 x int64), CRC-32 of those 20 bytes
    record   length of the body (uint32), CRC-32 of the body (uint32), body in CBOR, all little-endian

A body that is a list of texts adds names to the segment's table; any other is [mono_ns, index, number, index,
number...] where the indices point into the table. A point's sequence number is its place in the segment.
"""

from __future__ import annotations

import struct
import zlib
from typing import Dict, List, Optional, Tuple

import cbor2

from farrier_contracts.wire.telemetry import Clock, Point

RECORD_MAX_BYTES = 64 << 10
HEADER = struct.Struct("<4sqqI")
_FRAME = struct.Struct("<II")
_MAGIC = b"FSP1"


def header(clock: Clock) -> bytes:
    """Return the first bytes of a segment."""
    fixed = HEADER.pack(_MAGIC, clock.mono_ns, clock.wall_ns, 0)[:-4]
    return fixed + struct.pack("<I", zlib.crc32(fixed))


class Encoder:
    """Makes the records of one segment; keeps the table of names that the segment holds so far."""

    def __init__(self) -> None:
        self._index: Dict[str, int] = {}

    def encode(self, point: Point) -> bytes:
        """Return the bytes to append for a point, with a record of new names before it where needed."""
        new = [name for name in point.values if name not in self._index]
        index = {**self._index, **{name: len(self._index) + i for i, name in enumerate(new)}}
        row: List[object] = [point.mono_ns]
        for name, number in point.values.items():
            row += (index[name], number)
        data = (_framed(cbor2.dumps(new)) if new else b"") + _framed(cbor2.dumps(row))
        self._pending = index
        return data

    def written(self) -> None:
        """Say that the bytes of the last `encode` are on the disk."""
        self._index = self._pending


def decode(data: bytes, *, first: int) -> Tuple[Optional[Clock], List[Point], int]:
    """Return a segment's clock, its points, and how many bytes are whole; stops at the first damaged record."""
    if len(data) < HEADER.size or zlib.crc32(data[: HEADER.size - 4]) != HEADER.unpack_from(data)[3]:
        return None, [], 0
    magic, mono_ns, wall_ns, _ = HEADER.unpack_from(data)
    if magic != _MAGIC:
        return None, [], 0
    names: List[str] = []
    points: List[Point] = []
    position = whole = HEADER.size
    while position + _FRAME.size <= len(data):
        length, crc = _FRAME.unpack_from(data, position)
        body = data[position + _FRAME.size : position + _FRAME.size + length]
        if length > RECORD_MAX_BYTES or len(body) != length or zlib.crc32(body) != crc:
            break
        position += _FRAME.size + length
        row = _body(body)
        if row is None:
            break
        if row and isinstance(row[0], str):
            names += row
            continue
        point = _point(row, names, seq=first + len(points))
        if point is None:
            break
        points.append(point)
        whole = position
    return Clock(mono_ns, wall_ns), points, whole


def _framed(body: bytes) -> bytes:
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def _body(body: bytes) -> Optional[list]:
    try:
        row = cbor2.loads(body)
    except (cbor2.CBORDecodeError, ValueError):
        return None
    return row if isinstance(row, list) and row else None


def _point(row: list, names: List[str], *, seq: int) -> Optional[Point]:
    try:
        return Point(seq, row[0], {names[i]: number for i, number in zip(row[1::2], row[2::2])})
    except (IndexError, TypeError):
        return None
