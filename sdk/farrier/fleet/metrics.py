"""What a device's metrics say about its work: one table of names, the same for the command line and the dashboard.

A stream holds one column per deployment (`inference.requests{digits}`); such columns are read together. Counts are
those of the interval before each point, so a rate is their sum over the time that the points cover. Requests are
counted in every point, other counts only where they are not zero.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..store import Bucket, Device, Store, columns, interval_ns, series

SECOND_NS = 10**9
RATE_WINDOW_S = 30.0
SILENT_AFTER_S = 60.0  # an online device that says nothing for so long is shown as silent

REQUESTS = "inference.requests"
ERRORS = "inference.errors"
HITS = "inference.cache.hits"
MISSES = "inference.cache.misses"
ITEMS = "inference.items"
EXECUTIONS = "inference.executions"
P50 = "inference.latency.p50"
P99 = "inference.latency.p99"
CPU = "system.cpu.utilization"
OWN_CPU = "process.cpu.utilization"
MEMORY = "process.memory.usage"
COUNTS = (REQUESTS, ERRORS, HITS, MISSES, ITEMS, EXECUTIONS)
METRICS = (*COUNTS, P50, P99, CPU, OWN_CPU, MEMORY)
STREAM = "inference"


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
    groups = columns_by_metric(columns(store, device_id))
    names = [name for group in groups.values() for name in group]
    read = series(store, device_id, names, since_ns=since_ns, until_ns=until_ns, buckets=buckets)
    step = -(-(until_ns - since_ns) // buckets)
    slices = {metric: _by_slice(read[name] for name in group) for metric, group in groups.items()}
    interval = interval_ns(store, device_id, STREAM)
    # how many seconds of the device's life the points of each slice speak of
    covered = {
        at: max(piece.count for piece in pieces) * interval / SECOND_NS
        for at, pieces in slices[REQUESTS].items()
        if interval
    }
    return {metric: _curve(metric, slices[metric], step, covered) for metric in METRICS}


def columns_by_metric(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the columns that belong to each known metric."""
    found: dict[str, list[str]] = {metric: [] for metric in METRICS}
    for name in sorted(set(names)):
        metric = name.partition("{")[0]
        if metric in found:
            found[metric].append(name)
    return found


def _by_slice(parts: Iterable[list[Bucket]]) -> dict[int, list[Bucket]]:
    slices: dict[int, list[Bucket]] = {}
    for piece in sorted((piece for part in parts for piece in part), key=lambda piece: piece.start_ns):
        slices.setdefault(piece.start_ns, []).append(piece)
    return slices


def _curve(
    metric: str, slices: Mapping[int, list[Bucket]], step_ns: int, covered: Mapping[int, float]
) -> Curve:
    if metric in COUNTS:
        rates = {at: sum(piece.total for piece in slices.get(at, ())) / covered[at] for at in covered}
        return Curve(metric, step_ns, tuple(rates), tuple(rates.values()))
    values = tuple(_value(metric, pieces) for pieces in slices.values())
    return Curve(metric, step_ns, tuple(slices), values)


def _value(metric: str, pieces: list[Bucket]) -> float:
    if metric == P99:
        return max(piece.high for piece in pieces)
    return sum(piece.total for piece in pieces) / sum(piece.count for piece in pieces)


def hit_share(found: Mapping[str, Curve]) -> Curve:
    """Return the share of look-ups that the cache answered, where there were any."""
    pairs = _paired(found[HITS], found[MISSES])
    return _ratio("cache hits", found[HITS], [(at, hit, hit + miss) for at, hit, miss in pairs])


def batch_size(found: Mapping[str, Curve]) -> Curve:
    """Return how many items one run of the engine took, where it ran."""
    return _ratio("batch size", found[ITEMS], _paired(found[ITEMS], found[EXECUTIONS]))


def _paired(first: Curve, second: Curve) -> list[tuple[int, float, float]]:
    other = dict(zip(second.times_ns, second.values, strict=True))
    return [(at, value, other.get(at, 0.0)) for at, value in zip(first.times_ns, first.values, strict=True)]


def _ratio(name: str, like: Curve, parts: Iterable[tuple[int, float, float]]) -> Curve:
    known = [(at, part / whole) for at, part, whole in parts if whole > 0]
    return Curve(name, like.step_ns, tuple(at for at, _ in known), tuple(value for _, value in known))
