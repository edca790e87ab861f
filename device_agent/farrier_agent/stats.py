"""What a worker counts, in a small memory-mapped file: no RPC to read it, and a killed worker loses nothing.

The file is a header of one 8-byte mark and then unsigned 64-bit counters in the machine's byte order. One process
writes; each counter belongs to one of its threads. A reader sees every counter whole, though not all of them at
the same instant. Counters only grow, also over a restart of the worker; gauges start at zero again.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Sequence, Tuple

from farrier_contracts.errors import InputError

BUCKET_COUNT = 20
FIRST_BOUND_NS = 50_000
# upper bounds in nanoseconds: 50 us, then doubling to 13.1 s; the last bucket has no bound
BOUNDS_NS: Tuple[int, ...] = tuple(FIRST_BOUND_NS << k for k in range(BUCKET_COUNT - 1))

_MARK = b"FARRSTA1"
_WORD = 8


@dataclass(frozen=True)
class Snapshot:
    """All counters at one time; durations in nanoseconds. `buckets` counts requests by duration (BOUNDS_NS).

    `requests` are those answered with outputs; `errors` failed in the engine or were wrong; `rejected` were turned
    away unrun (queue full, too late, draining). `items` are rows along axis 0, `executions` runs of the engine.
    `queue_depth` waits, `in_flight` is being answered (waiting included). `heartbeat` stands still in a hang.
    """

    requests: int = 0
    errors: int = 0
    rejected: int = 0
    items: int = 0
    executions: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    cache_mismatches: int = 0
    queue_depth: int = 0
    in_flight: int = 0
    duration_sum_ns: int = 0
    duration_max_ns: int = 0
    compute_sum_ns: int = 0
    queue_sum_ns: int = 0
    heartbeat: int = 0
    buckets: Tuple[int, ...] = (0,) * BUCKET_COUNT


_NAMES = tuple(field.name for field in fields(Snapshot) if field.name != "buckets")
_SLOT = {name: index for index, name in enumerate(_NAMES)}
_GAUGES = ("queue_depth", "in_flight")
_SIZE = len(_MARK) + _WORD * (len(_NAMES) + BUCKET_COUNT)
_DURATION_SUM, _DURATION_MAX = _SLOT["duration_sum_ns"], _SLOT["duration_max_ns"]
_FIRST_BUCKET = len(_NAMES)


def bucket(duration_ns: int) -> int:
    """Return the index of the bucket that a duration falls into; a bound belongs to the bucket below it."""
    if duration_ns <= FIRST_BOUND_NS:
        return 0
    return min(((duration_ns - 1) // FIRST_BOUND_NS).bit_length(), BUCKET_COUNT - 1)


def quantile(buckets: Sequence[int], q: float) -> float:
    """Return the `q` quantile (0 to 1) in nanoseconds, 0 where nothing was counted.

    Interpolates inside the bucket as Prometheus' `histogram_quantile` does; the unbounded one gives its lower
    bound. `buckets` may be the difference of two snapshots.
    """
    total = sum(buckets)
    if not total:
        return 0.0
    rank, below = q * total, 0
    for index, count in enumerate(buckets):
        if count and below + count >= rank:
            lower = BOUNDS_NS[index - 1] if index else 0
            if index == BUCKET_COUNT - 1:
                return float(lower)
            share = max(0.0, rank - below) / count
            return lower + (BOUNDS_NS[index] - lower) * share
        below += count
    return float(BOUNDS_NS[-1])


class Stats:
    """The counters of one deployment, shared through a file. Use `create` or `open`."""

    def __init__(self, view: mmap.mmap) -> None:
        self._map = view
        self._bytes = memoryview(view)
        self._words = self._bytes[len(_MARK) :].cast("Q")

    @classmethod
    def anonymous(cls) -> Stats:
        """Count in this process alone, with no file."""
        view = mmap.mmap(-1, _SIZE)
        view[: len(_MARK)] = _MARK
        return cls(view)

    @classmethod
    def create(cls, path: Path) -> Stats:
        """Make a file of zeros at `path`, whole or not at all, and open it for writing."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_bytes(_MARK + bytes(_SIZE - len(_MARK)))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        return cls._map_file(path, writable=True)

    @classmethod
    def open(cls, path: Path, *, writable: bool = False) -> Stats:
        """Open an existing file; a writer sets its gauges to zero. Raises InputError where it is not one of ours."""
        stats = cls._map_file(path, writable=writable)
        if writable:
            for name in _GAUGES:
                stats.set(name, 0)
        return stats

    @classmethod
    def attach(cls, path: Path) -> Stats:
        """Open for writing and count on; start from zero where the file is absent, damaged or of another version."""
        try:
            return cls.open(path, writable=True)
        except InputError:
            return cls.create(path)

    @classmethod
    def _map_file(cls, path: Path, *, writable: bool) -> Stats:
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        try:
            with path.open("r+b" if writable else "rb") as file:
                if os.fstat(file.fileno()).st_size != _SIZE:
                    raise InputError(f"{path} does not hold the statistics of this version's workers")
                view = mmap.mmap(file.fileno(), _SIZE, access=access)
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        if view[: len(_MARK)] != _MARK:
            view.close()
            raise InputError(f"{path} does not hold the statistics of this version's workers")
        return cls(view)

    def add(self, name: str, amount: int = 1) -> None:
        """Count `amount` more."""
        self._words[_SLOT[name]] += amount

    def set(self, name: str, value: int) -> None:
        """Set a gauge."""
        self._words[_SLOT[name]] = value

    def observe(self, duration_ns: int) -> None:
        """Count one answered request's duration, from its last byte read to its answer written."""
        words = self._words
        words[_FIRST_BUCKET + bucket(duration_ns)] += 1
        words[_DURATION_SUM] += duration_ns
        words[_DURATION_MAX] = max(words[_DURATION_MAX], duration_ns)

    def read(self) -> Snapshot:
        """Return all counters."""
        words = self._words.tolist()
        return Snapshot(*words[:_FIRST_BUCKET], buckets=tuple(words[_FIRST_BUCKET:]))

    def close(self) -> None:
        """Let go of the file; what was counted stays in it."""
        self._words.release()
        self._bytes.release()
        self._map.close()

    def __enter__(self) -> Stats:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
