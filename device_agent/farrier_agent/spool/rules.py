"""The spool's arithmetic: ranges of sequence numbers, and which segment goes first when room is short."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterable, Optional, Sequence, Tuple

Range = Tuple[int, int]  # first and last, both included
Ranges = Tuple[Range, ...]  # in order, neither overlapping nor touching

# Streams from the least to the most valuable: when room is short, points of the first go first.
STREAMS = ("system", "inference")


def merged(ranges: Iterable[Range]) -> Ranges:
    """Return ranges in order, with overlapping and touching ones made one."""
    result: list[Range] = []
    for first, last in sorted(ranges):
        if first > last:
            continue
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)


def gaps(held: Sequence[Range], *, start: int, end: int) -> Ranges:
    """Return which numbers of [start, end) are in none of `held`."""
    missing, position = [], start
    for first, last in merged(held):
        if first > position:
            missing.append((position, min(first, end) - 1))
        position = max(position, last + 1)
    if position < end:
        missing.append((position, end - 1))
    return merged(missing)


def after(ranges: Iterable[Range], number: int) -> Ranges:
    """Return the part of `ranges` above `number`."""
    return merged((max(first, number + 1), last) for first, last in ranges if last > number)


@dataclass(frozen=True)
class Candidate:
    """One segment that could be dropped; `age` orders boots, the oldest with the smallest number."""

    age: int
    stream: str
    first: int
    size: int  # bytes


def victim(candidates: Sequence[Candidate]) -> Optional[Candidate]:
    """Return the segment to drop: of the least valuable stream the oldest, None where there is nothing."""
    return min(candidates, key=lambda c: (value(c.stream), c.age, c.first), default=None)


def value(stream: str) -> int:
    """Return a stream's place in STREAMS; unknown ones (of another version's boot) count as the least."""
    return STREAMS.index(stream) if stream in STREAMS else -1
