"""Telemetry batches: points of one stream in columns, and the arithmetic of what arrived.

A point is one row of numbers with a sequence number that counts up from 0 within (device, boot, stream), and a
monotonic time in nanoseconds. `boot` names one run of the agent: sequence numbers and monotonic times are only
comparable within it. A batch holds consecutive points:

    {"v": 1, "boot": "…", "seq": 17, "low": 3, "t": [t0, +dt, +dt…], "wall": [mono_ns, wall_ns, unc_ns],
     "cols": {"inference.requests": [12, 15, null…], …}}

`low` is the smallest sequence number that the device still holds: whatever lies below was acknowledged before, or
is in the device's ledger of losses. Acknowledgement (`ack/{stream}`): {"boot": "…", "seq": 41}: every point up to and
including 41 is stored for good, or known to be lost. Statement (inside `reported`): what one boot produced and lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple, Union

from ..errors import InputError

VERSION = 1
MAX_POINTS = 4096  # of one batch
MAX_COLUMNS = 256
MAX_NAME = 128
SEQ_LIMIT = 1 << 53
INT_LIMIT = 1 << 63  # of values and clocks: what databases hold

Value = Union[int, float, None]


@dataclass(frozen=True)
class Point:
    """One row: `seq`, monotonic time in nanoseconds, and numbers by metric name."""

    seq: int
    mono_ns: int
    values: Mapping[str, Value]


@dataclass(frozen=True)
class Clock:
    """One reading of both clocks; wall time of a point = its mono_ns - `mono_ns` + `wall_ns`, give or take."""

    mono_ns: int
    wall_ns: int
    uncertainty_ns: int = 0

    def wall(self, mono_ns: int) -> int:
        """Return the wall time in nanoseconds since 1970 of a monotonic time."""
        return mono_ns - self.mono_ns + self.wall_ns


@dataclass(frozen=True)
class Batch:
    """Consecutive points of one stream of one boot; `low` is the smallest number the device still holds."""

    boot: str
    low: int
    clock: Clock
    points: Tuple[Point, ...]

    @property
    def first(self) -> int:
        """The first point's sequence number."""
        return self.points[0].seq

    @property
    def last(self) -> int:
        """The last point's sequence number."""
        return self.points[-1].seq


@dataclass(frozen=True)
class Statement:
    """What one stream of one boot produced so far, and which ranges [first, last] of it were dropped."""

    boot: str
    stream: str
    produced: int
    dropped: Tuple[Tuple[int, int], ...] = ()

    @property
    def lost(self) -> int:
        """The number of points dropped."""
        return sum(last - first + 1 for first, last in self.dropped)

    def to_document(self) -> Dict[str, Any]:
        """Return the form used in the reported state."""
        return {**vars(self), "dropped": [list(pair) for pair in self.dropped]}

    @staticmethod
    def from_document(document: Any) -> Statement:
        """Read `to_document`'s form; raises InputError."""
        table = _table(document)
        dropped = table.get("dropped", [])
        if not isinstance(dropped, list) or len(dropped) > MAX_POINTS:
            raise InputError("a telemetry statement has a wrong ledger")
        pairs: List[Tuple[int, int]] = []
        for pair in dropped:
            if not isinstance(pair, list) or len(pair) != 2 or _seq(pair[0]) > _seq(pair[1]):
                raise InputError("a telemetry statement has a wrong ledger")
            pairs.append((pair[0], pair[1]))
        return Statement(
            _name(table.get("boot")), _name(table.get("stream")), _seq(table.get("produced")), tuple(pairs)
        )


def to_document(batch: Batch) -> Dict[str, Any]:
    """Return the batch in columns, ready for CBOR or JSON."""
    names = sorted({name for point in batch.points for name in point.values})
    times = [point.mono_ns for point in batch.points]
    return {
        "v": VERSION,
        "boot": batch.boot,
        "seq": batch.first,
        "low": batch.low,
        "t": times[:1] + [later - earlier for earlier, later in zip(times, times[1:])],
        "wall": [batch.clock.mono_ns, batch.clock.wall_ns, batch.clock.uncertainty_ns],
        "cols": {name: [point.values.get(name) for point in batch.points] for name in names},
    }


def from_document(document: Any) -> Batch:
    """Check a document and make a Batch of it; raises InputError."""
    table = _table(document)
    if table.get("v") != VERSION:
        raise InputError(f"telemetry version {table.get('v')!r} is unknown")
    steps = table.get("t")
    if (
        not isinstance(steps, list)
        or not 1 <= len(steps) <= MAX_POINTS
        or any(type(s) is not int for s in steps)
    ):
        raise InputError("a telemetry batch has wrong times")
    columns = _columns(table.get("cols"), len(steps))
    first, mono_ns, points = _seq(table.get("seq")), 0, []
    _seq(first + len(steps) - 1)
    for index, step in enumerate(steps):
        mono_ns += step
        if not 0 <= mono_ns < INT_LIMIT:
            raise InputError("a telemetry batch has wrong times")
        values = {name: column[index] for name, column in columns.items() if column[index] is not None}
        points.append(Point(first + index, mono_ns, values))
    low = _seq(table.get("low"))
    if low > first:
        raise InputError("a telemetry batch holds points below its own low mark")
    return Batch(_name(table.get("boot")), low, _clock(table.get("wall")), tuple(points))


def advance(stored: int, batch_first: int, batch_last: int, low: int) -> int:
    """Return the new acknowledged number after a batch has been stored.

    `stored` is the acknowledged number so far (-1 for none). Numbers below `low` need not be waited for: the
    device no longer holds them. A gap above `low` holds the acknowledgement back until it is filled.
    """
    reached = max(stored, low - 1)
    return max(reached, batch_last) if batch_first <= reached + 1 else reached


def _columns(value: Any, length: int) -> Dict[str, Sequence[Value]]:
    table = _table(value)
    if len(table) > MAX_COLUMNS:
        raise InputError("a telemetry batch has too many columns")
    for name, column in table.items():
        _name(name)
        if not isinstance(column, list) or len(column) != length or not all(map(_is_value, column)):
            raise InputError(f"telemetry column {name!r:.80} is wrong")
    return table


def _is_value(value: Any) -> bool:
    if value is None:
        return True
    if type(value) is int:
        return abs(value) < INT_LIMIT
    return type(value) is float and math.isfinite(value)


def _is_clock(value: Any) -> bool:
    return type(value) is int and abs(value) < INT_LIMIT


def _clock(value: Any) -> Clock:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_clock, value)):
        raise InputError("a telemetry batch has a wrong clock")
    return Clock(*value)


def _table(value: Any) -> Dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError("telemetry must be an object")
    return value


def _name(value: Optional[Any]) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
        raise InputError("a name in telemetry is missing or too long")
    return value


def _seq(value: Any) -> int:
    if type(value) is not int or not 0 <= value < SEQ_LIMIT:
        raise InputError("a sequence number in telemetry is wrong")
    return value
