"""What a device's metrics say about its work: one table of names, the same for the command line and the dashboard.

A stream may hold one column per deployment (`inference.requests{digits}`); such columns are read together. Counts
are per interval between two points, so a rate is a sum over time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..store import Bucket, Device, Store, latest, series

SECOND_NS = 10**9
RATE_WINDOW_S = 30.0
SILENT_AFTER_S = 60.0  # an online device that says nothing for so long is shown as silent

REQUESTS = "inference.requests"
ERRORS = "inference.errors"
HITS = "inference.cache.hits"
MISSES = "inference.cache.misses"
P50 = "inference.latency.p50"
P99 = "inference.latency.p99"
CPU = "system.cpu.utilization"
MEMORY = "process.memory.usage"
COUNTS = (REQUESTS, ERRORS, HITS, MISSES)


@dataclass(frozen=True)
class Performance:
    """The last half minute of one device; None where nothing was measured. Latencies in seconds, shares 0 to 1."""

    requests_per_s: float | None
    p50_s: float | None
    p99_s: float | None
    cache_hit_share: float | None
    cpu_share: float | None
    memory_bytes: float | None


@dataclass(frozen=True)
class Curve:
    """One metric over time: wall times in nanoseconds and values; `step_ns` is the width of one slice."""

    name: str
    step_ns: int
    times_ns: tuple[int, ...]
    values: tuple[float, ...]


def presence(device: Device, now_ns: int) -> str:
    """Return "online", "silent" (connected, but nothing heard for a minute) or "offline"."""
    if not device.online:
        return "offline"
    return "silent" if now_ns - device.seen_ns > SILENT_AFTER_S * SECOND_NS else "online"


def performance(store: Store, device_id: int, *, now_ns: int | None = None) -> Performance:
    """Return what a device did in the last RATE_WINDOW_S seconds."""
    until = time.time_ns() if now_ns is None else now_ns
    found = curves(
        store, device_id, since_ns=until - int(RATE_WINDOW_S * SECOND_NS), until_ns=until, buckets=1
    )
    last = {name: curve.values[-1] for name, curve in found.items() if curve.values}
    hits, misses = last.get(HITS), last.get(MISSES)
    looked = (hits or 0.0) + (misses or 0.0)
    return Performance(
        requests_per_s=last.get(REQUESTS),
        p50_s=last.get(P50),
        p99_s=last.get(P99),
        cache_hit_share=(hits or 0.0) / looked if looked else None,
        cpu_share=last.get(CPU),
        memory_bytes=last.get(MEMORY),
    )


def curves(store: Store, device_id: int, *, since_ns: int, until_ns: int, buckets: int) -> dict[str, Curve]:
    """Return every known metric over a span of wall time: counts as rates per second, the rest as it was read.

    Over a slice, p99 is the largest seen and everything else the mean.
    """
    columns = columns_by_metric(
        name for reading in latest(store, device_id).values() for name in reading.values
    )
    names = [name for group in columns.values() for name in group]
    read = series(store, device_id, names, since_ns=since_ns, until_ns=until_ns, buckets=buckets)
    step = -(-(until_ns - since_ns) // buckets)
    return {metric: _curve(metric, [read[name] for name in group], step) for metric, group in columns.items()}


def columns_by_metric(columns: Iterable[str]) -> dict[str, list[str]]:
    """Return the columns that belong to each known metric."""
    found: dict[str, list[str]] = {metric: [] for metric in (*COUNTS, P50, P99, CPU, MEMORY)}
    for column in sorted(set(columns)):
        metric = column.partition("{")[0]
        if metric in found:
            found[metric].append(column)
    return found


def _curve(metric: str, parts: list[list[Bucket]], step_ns: int) -> Curve:
    slices: dict[int, list[Bucket]] = {}
    for part in parts:
        for piece in part:
            slices.setdefault(piece.start_ns, []).append(piece)
    times = tuple(sorted(slices))
    return Curve(metric, step_ns, times, tuple(_value(metric, slices[at], step_ns) for at in times))


def _value(metric: str, pieces: list[Bucket], step_ns: int) -> float:
    if metric in COUNTS:
        return sum(piece.total for piece in pieces) / (step_ns / SECOND_NS)
    if metric == P99:
        return max(piece.high for piece in pieces)
    return sum(piece.total for piece in pieces) / sum(piece.count for piece in pieces)


def shares(hits: Curve, misses: Curve) -> Curve:
    """Return the share of hits among look-ups over time."""
    missed: Mapping[int, float] = dict(zip(misses.times_ns, misses.values, strict=True))
    pairs = [(at, hit, missed.get(at, 0.0)) for at, hit in zip(hits.times_ns, hits.values, strict=True)]
    looked = [(at, hit / (hit + miss)) for at, hit, miss in pairs if hit + miss > 0]
    return Curve(
        "inference.cache.share", hits.step_ns, tuple(at for at, _ in looked), tuple(v for _, v in looked)
    )
