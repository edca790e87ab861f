"""From counters to telemetry: what happened in one interval, as columns.

Names follow OpenTelemetry where it has any; durations are in seconds, sizes in bytes, utilization from 0 to 1. The
deployment stands in braces: `inference.requests{digits}`. Counts are those of the interval, not totals: their sum
over received points is exact, whatever restarts. Counts of zero are left out, except requests; latencies are there
only where there were requests.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Dict, Iterable, List, Mapping

from farrier_contracts.wire.telemetry import MAX_COLUMNS, Value

from ..stats import Snapshot, quantile

NOTHING = Snapshot()
# of the moment rather than of the interval
GAUGES = ("queue_depth", "in_flight", "heartbeat", "duration_max_ns")
_COUNTERS = tuple(f.name for f in fields(Snapshot) if f.name not in (*GAUGES, "buckets"))

# metric -> (unit, counter of Snapshot), units as in UCUM
COUNTS: Mapping[str, str] = {
    "inference.requests": "requests",
    "inference.errors": "errors",
    "inference.rejected": "rejected",
    "inference.items": "items",
    "inference.executions": "executions",
    "inference.cache.hits": "cache_hits",
    "inference.cache.misses": "cache_misses",
    "inference.cache.mismatches": "cache_mismatches",
}
UNITS: Mapping[str, str] = {
    **dict.fromkeys(COUNTS, "1"),
    "inference.queue.depth": "1",
    "inference.latency.p50": "s",
    "inference.latency.p99": "s",
    "inference.latency.mean": "s",
    "inference.compute.duration": "s",
    "process.cpu.utilization": "1",
    "process.memory.usage": "By",
    "system.cpu.utilization": "1",
    "system.memory.usage": "By",
    "system.memory.limit": "By",
    "system.filesystem.free": "By",
    "hw.temperature": "Cel",
    "agent.spool.size": "By",
    "agent.spool.lost": "1",
}


def difference(later: Snapshot, earlier: Snapshot) -> Snapshot:
    """Return what was counted between two readings of one file."""
    counted = {name: getattr(later, name) - getattr(earlier, name) for name in _COUNTERS}
    buckets = tuple(b - a for a, b in zip(earlier.buckets, later.buckets))
    return replace(later, buckets=buckets, **counted)


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum over the workers that served one deployment in an interval."""
    result = NOTHING
    for each in snapshots:
        summed = {name: getattr(result, name) + getattr(each, name) for name in (*_COUNTERS, "queue_depth")}
        buckets = tuple(a + b for a, b in zip(result.buckets, each.buckets))
        result = replace(result, buckets=buckets, **summed)
    return result


def columns(deployment: str, counted: Snapshot) -> Dict[str, Value]:
    """Return one deployment's columns of the stream `inference`."""
    values: Dict[str, Value] = {name: getattr(counted, field) for name, field in COUNTS.items()}
    values["inference.queue.depth"] = counted.queue_depth
    values = {name: v for name, v in values.items() if v or name == "inference.requests"}
    timed = sum(counted.buckets)
    if timed:
        values["inference.latency.p50"] = round(quantile(counted.buckets, 0.5) / 1e9, 9)
        values["inference.latency.p99"] = round(quantile(counted.buckets, 0.99) / 1e9, 9)
        values["inference.latency.mean"] = round(counted.duration_sum_ns / timed / 1e9, 9)
    if counted.executions:
        mean_ns = counted.compute_sum_ns / counted.executions
        values["inference.compute.duration"] = round(mean_ns / 1e9, 9)
    return {f"{name}{{{deployment}}}": value for name, value in values.items()}


def points(rows: Iterable[Mapping[str, Value]]) -> List[Dict[str, Value]]:
    """Return the rows of all deployments as few points, none wider than a batch may be."""
    result: List[Dict[str, Value]] = []
    for row in rows:
        if not result or len(result[-1]) + len(row) > MAX_COLUMNS:
            result.append({})
        result[-1].update(row)
    return result
