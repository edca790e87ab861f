"""One stream of one boot on disk: segment files, the acknowledged number, and the ledger of losses.

FOLDER/0000000000000017.seg     points from number 17 on (see `records`)
FOLDER/17-41.lost               a segment that is being dropped: its name is its entry in the ledger
FOLDER/ledger                   JSON list of [first, last]
FOLDER/ack                      the last acknowledged number

A number that is neither acknowledged, held nor in the ledger when a folder is opened again is entered there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Deque, List, Mapping, Optional, Tuple

from farrier_contracts.wire.telemetry import SEQ_LIMIT, Clock, Point, Value

from . import records, rules

RECENT_POINTS = 512  # kept in memory, so that sending live points reads no disk
_ACK_DIGITS = 20


@dataclass
class Segment:
    """One file of consecutive points."""

    path: Path
    first: int
    count: int
    size: int  # bytes
    clock: Clock

    @property
    def last(self) -> int:
        """The last point's number; first - 1 where there is none yet."""
        return self.first + self.count - 1


class StreamSpool:
    """Points of one stream of one boot, numbered from 0 in the order of `append`."""

    def __init__(self, folder: Path, *, segment_bytes: int, clock: Callable[[], Clock]) -> None:
        """Open a folder, new or left behind by an earlier run. Raises OSError where it cannot be made."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._file: Optional[int] = None  # descriptor of the last segment while it grows
        self._encoder = records.Encoder()
        self._recent: Deque[Point] = deque(maxlen=RECENT_POINTS)
        self._decoded: Tuple[int, List[Point]] = (-1, [])
        self._ledger_is_old = False
        self.acknowledged = _read_ack(folder / "ack")
        self.dropped = self._read_ledger()
        self.segments = self._recover()
        ends = [s.last for s in self.segments] + [last for _, last in self.dropped]
        self.produced = max([self.acknowledged, *ends]) + 1
        self._enter_gaps()
        self._free()

    @property
    def low(self) -> int:
        """The smallest number that is held and not acknowledged; `produced` where there is none."""
        return next(
            (max(s.first, self.acknowledged + 1) for s in self.segments if s.last > self.acknowledged),
            self.produced,
        )

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self.segments)

    @property
    def newest_clock(self) -> Optional[Clock]:
        """The last reading of both clocks that a segment holds."""
        return self.segments[-1].clock if self.segments else None

    def append(self, mono_ns: int, values: Mapping[str, Value]) -> Point:
        """Write a point and return it with its number; on OSError nothing was written and no number was used."""
        descriptor, segment = self._open_segment()
        point = Point(self.produced, mono_ns, dict(values))
        data = self._encoder.encode(point)
        try:
            _write_whole(descriptor, data, size_before=segment.size)
        except OSError:
            self._close_segment()
            raise
        self._encoder.written()
        segment.size += len(data)
        segment.count += 1
        self.produced += 1
        self._recent.append(point)
        if segment.size >= self._segment_bytes:
            self._close_segment(sync=True)
        if self._ledger_is_old:
            self._save_ledger()
        return point

    def lose_next(self) -> None:
        """Use up the next number for a point that could not be written, and enter it in the ledger."""
        self._close_segment()
        self._enter((self.produced, self.produced))
        self.produced += 1

    def drop(self, first: int) -> None:
        """Enter the segment that begins at `first` in the ledger, then delete it."""
        segment = next(s for s in self.segments if s.first == first)
        if segment is self.segments[-1]:
            self._close_segment()
        self.segments = [s for s in self.segments if s is not segment]
        lost = (max(segment.first, self.acknowledged + 1), segment.last)
        tomb = self._folder / f"{lost[0]}-{lost[1]}.lost"
        try:
            segment.path.replace(tomb)
            os.truncate(tomb, 0)
        except OSError:
            segment.path.unlink(missing_ok=True)
        self._enter(lost)

    def read(self, first: int, limit: int) -> List[Point]:
        """Return up to `limit` consecutive points, from the smallest number held that is `first` or more."""
        first = max(first, self.low)
        if self._recent and self._recent[0].seq <= first:
            held = [p for p in self._recent if p.seq >= first]
        else:
            segment = next((s for s in self.segments if s.last >= first and s.count), None)
            held = [p for p in self._points(segment) if p.seq >= first] if segment else []
        return [p for i, p in enumerate(held[:limit]) if p.seq == held[0].seq + i]

    def acknowledge(self, number: int, *, closed: bool) -> None:
        """Take it that the fleet has every point up to `number`, and free the disk.

        `closed` says that nothing is appended any more: then a larger number than any held tells of points that a
        power cut took from this disk after they were sent, and counts as produced.
        """
        number = min(number, SEQ_LIMIT - 1) if closed else min(number, self.produced - 1)
        if number <= self.acknowledged:
            return
        self.acknowledged = number
        self.produced = max(self.produced, number + 1)
        # On a full disk the mark may stay old: the numbers then count as dropped, which the fleet knows better.
        with contextlib.suppress(OSError):
            _write_ack(self._folder / "ack", number)
        self._free()

    def close(self) -> None:
        """Close the growing segment."""
        self._close_segment()

    def _points(self, segment: Segment) -> List[Point]:
        if self._decoded[0] != segment.first or len(self._decoded[1]) != segment.count:
            with contextlib.suppress(OSError):
                self._decoded = (
                    segment.first,
                    records.decode(segment.path.read_bytes(), first=segment.first)[1],
                )
        return self._decoded[1] if self._decoded[0] == segment.first else []

    def _free(self) -> None:
        if self._file is not None and self.segments[-1].last <= self.acknowledged:
            # a fully acknowledged growing segment goes on growing until it is full: no file per point
            done, kept = self.segments[:-1], self.segments[-1:]
        else:
            done, kept = self.segments, []
        for segment in done:
            if segment.last <= self.acknowledged:
                segment.path.unlink(missing_ok=True)
        self.segments = [s for s in done if s.last > self.acknowledged] + kept

    def _open_segment(self) -> Tuple[int, Segment]:
        if self._file is not None:
            return self._file, self.segments[-1]
        clock = self._clock()
        path = self._folder / f"{self.produced:016d}.seg"
        data = records.header(clock)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write_whole(descriptor, data, size_before=0)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._file, self._encoder = descriptor, records.Encoder()
        self.segments.append(Segment(path, self.produced, 0, len(data), clock))
        return descriptor, self.segments[-1]

    def _close_segment(self, *, sync: bool = False) -> None:
        if self._file is None:
            return
        if sync:
            with contextlib.suppress(OSError):
                os.fsync(self._file)
        os.close(self._file)
        self._file = None
        if not self.segments[-1].count:
            self.segments.pop().path.unlink(missing_ok=True)

    def _enter(self, lost: rules.Range) -> None:
        self.dropped = rules.merged([*self.dropped, lost])
        self._save_ledger()

    def _enter_gaps(self) -> None:
        held = [(0, self.acknowledged), *self.dropped, *((s.first, s.last) for s in self.segments)]
        missing = rules.gaps(held, start=0, end=self.produced)
        if missing or any(self._folder.glob("*.lost")):
            self.dropped = rules.merged([*self.dropped, *missing])
            self._save_ledger()

    def _save_ledger(self) -> None:
        temporary = self._folder / "ledger.tmp"
        try:
            with temporary.open("w") as file:
                json.dump([list(pair) for pair in self.dropped], file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._folder / "ledger")
        except OSError:  # a full disk: the tombs or the gap itself tell it to the next run
            self._ledger_is_old = True
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            return
        self._ledger_is_old = False
        for tomb in self._folder.glob("*.lost"):
            tomb.unlink(missing_ok=True)

    def _read_ledger(self) -> rules.Ranges:
        pairs: List[rules.Range] = []
        with contextlib.suppress(OSError, ValueError):
            pairs = [_range(pair) for pair in json.loads((self._folder / "ledger").read_text())]
        for tomb in self._folder.glob("*.lost"):
            with contextlib.suppress(ValueError):
                pairs.append(_range([int(n) for n in tomb.stem.split("-")]))
        return rules.merged(pairs)

    def _recover(self) -> List[Segment]:
        segments: List[Segment] = []
        for path in sorted(self._folder.glob("*.seg")):
            data = path.read_bytes()
            first = int(path.stem) if path.stem.isdigit() else -1
            clock, points, whole = records.decode(data, first=first)
            if clock is None or not points or first < 0:
                path.unlink(missing_ok=True)
                continue
            if whole < len(data):
                os.truncate(path, whole)
            segments.append(Segment(path, first, len(points), whole, clock))
        return segments


def _write_whole(descriptor: int, data: bytes, *, size_before: int) -> None:
    if os.write(descriptor, data) != len(data):
        os.ftruncate(descriptor, size_before)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _range(pair: Any) -> rules.Range:
    first, last = pair
    if type(first) is not int or type(last) is not int or not 0 <= first <= last < SEQ_LIMIT:
        raise ValueError("not a range")
    return first, last


def _read_ack(path: Path) -> int:
    try:
        number = int(path.read_bytes())
    except (OSError, ValueError):
        return -1
    return number if -1 <= number < SEQ_LIMIT else -1


def _write_ack(path: Path, number: int) -> None:
    # In place and of one length: needs no room on a full disk, and no reader sees half of it but the next run.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(descriptor, b"%*d" % (_ACK_DIGITS, number), 0)
    finally:
        os.close(descriptor)
