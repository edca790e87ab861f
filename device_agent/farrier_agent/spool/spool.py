"""All boots' streams under one folder and one byte budget.

SPOOL/<number>-<boot>/<stream>/...     `number` counts the agent's runs, `boot` names one
"""

from __future__ import annotations

import errno
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional

from farrier_contracts.wire.telemetry import Clock, Statement, Value

from . import rules
from .stream import StreamSpool

SEGMENT_BYTES = 64 << 10
SEGMENTS_PER_BUDGET = 16  # at least, so that dropping one costs a small share of what is held


def read_clock() -> Clock:
    """Return one reading of both clocks."""
    before = time.monotonic_ns()
    wall = time.time_ns()
    after = time.monotonic_ns()
    return Clock((before + after) // 2, wall, (after - before) // 2 + 1)


@dataclass
class Boot:
    """One run of the agent: its streams, by name."""

    name: str
    age: int
    folder: Path
    streams: Dict[str, StreamSpool] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether nothing is left to send."""
        return all(stream.low == stream.produced for stream in self.streams.values())

    def statements(self) -> List[Statement]:
        """Return what each stream produced and lost."""
        return [Statement(self.name, name, s.produced, s.dropped) for name, s in sorted(self.streams.items())]


class Spool:
    """The telemetry of this run (`current`) and of earlier ones (`old`) that the fleet does not have yet."""

    def __init__(
        self,
        folder: Path,
        *,
        boot: str,
        max_bytes: int,
        clock: Callable[[], Clock] = read_clock,
    ) -> None:
        """Open the folder and recover what earlier runs left. Raises OSError where it cannot be written."""
        self._max_bytes = max_bytes
        self._segment_bytes = min(SEGMENT_BYTES, max_bytes // SEGMENTS_PER_BUDGET)
        self._clock = clock
        folder.mkdir(parents=True, exist_ok=True)
        found = [self._recover(path) for path in sorted(folder.iterdir()) if path.is_dir()]
        self.old: List[Boot] = sorted((b for b in found if b), key=lambda b: b.age)
        age = max((b.age for b in found if b), default=0) + 1
        self.current = Boot(boot, age, folder / f"{age:08d}-{boot}")
        for stream in rules.STREAMS:
            self.current.streams[stream] = self._open(self.current.folder / stream)
        self._trim()

    @property
    def boots(self) -> List[Boot]:
        """This run first (live points matter most), then the earlier ones, the oldest first."""
        return [self.current, *self.old]

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(stream.size for boot in self.boots for stream in boot.streams.values())

    @property
    def lost(self) -> int:
        """Points dropped by all boots that are still known."""
        return sum(statement.lost for boot in self.boots for statement in boot.statements())

    def append(self, stream: str, mono_ns: int, values: Mapping[str, Value]) -> None:
        """Add a point to a stream (one of rules.STREAMS) of this run.

        On a full disk older points make room; what is lost, at worst this point, is in the ledger.
        """
        spool = self.current.streams[stream]
        while True:
            try:
                spool.append(mono_ns, values)
                break
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if not full or not self._drop_one():
                    spool.lose_next()
                    break
        self._trim()

    def acknowledge(self, boot: str, stream: str, number: int) -> None:
        """Free every point of a stream up to `number`; what is unknown is ignored."""
        for known in self.boots:
            if known.name == boot and stream in known.streams:
                known.streams[stream].acknowledge(number, closed=known is not self.current)

    def forget(self, boot: Boot) -> None:
        """Delete an earlier run whose points and statement the fleet has."""
        self.old = [b for b in self.old if b is not boot]
        shutil.rmtree(boot.folder, ignore_errors=True)

    def close(self, *, settled: bool = False) -> None:
        """Close all files; `settled` says that the fleet has everything of this run, which is then deleted."""
        for boot in self.boots:
            for stream in boot.streams.values():
                stream.close()
        if settled and self.current.empty:
            shutil.rmtree(self.current.folder, ignore_errors=True)

    def _open(self, folder: Path) -> StreamSpool:
        return StreamSpool(folder, segment_bytes=self._segment_bytes, clock=self._clock)

    def _trim(self) -> None:
        while self.size > self._max_bytes and self._drop_one():
            pass

    def _drop_one(self) -> bool:
        candidates = {
            rules.Candidate(boot.age, name, segment.first, segment.size): stream
            for boot in self.boots
            for name, stream in boot.streams.items()
            for segment in stream.segments
        }
        chosen = rules.victim(list(candidates))
        if chosen is None:
            return False
        candidates[chosen].drop(chosen.first)
        return True

    def _recover(self, folder: Path) -> Optional[Boot]:
        number, _, name = folder.name.partition("-")
        if not number.isdigit() or not name:
            return None
        boot = Boot(name, int(number), folder)
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                boot.streams[path.name] = self._open(path)
        if not any(stream.produced for stream in boot.streams.values()):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        return boot
