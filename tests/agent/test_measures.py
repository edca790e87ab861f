from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from farrier_agent.stats import BUCKET_COUNT, Snapshot, bucket
from farrier_agent.supervisor import measures, system
from farrier_contracts.wire.telemetry import MAX_COLUMNS

counts = st.integers(0, 1 << 40)
snapshots = st.builds(
    Snapshot,
    requests=counts,
    errors=counts,
    executions=counts,
    queue_depth=st.integers(0, 100),
    buckets=st.tuples(*[st.integers(0, 1000)] * BUCKET_COUNT),
)


@given(st.lists(snapshots, max_size=4))
def test_deltas_of_totals_are_totals_of_deltas(parts: list[Snapshot]) -> None:
    """What several workers counted in one interval adds up, whenever it is read."""
    reached = measures.total(parts)
    assert measures.difference(reached, measures.NOTHING) == replace(reached, heartbeat=0)
    assert measures.difference(reached, reached).requests == 0
    assert reached.requests == sum(p.requests for p in parts)
    assert sum(reached.buckets) == sum(sum(p.buckets) for p in parts)


def test_columns_of_an_interval() -> None:
    buckets = [0] * BUCKET_COUNT
    buckets[bucket(1_000_000)] = 98
    buckets[bucket(40_000_000)] = 2
    counted = Snapshot(
        requests=100,
        executions=25,
        cache_hits=3,
        compute_sum_ns=50_000_000,
        duration_sum_ns=200_000_000,
        queue_depth=2,
        buckets=tuple(buckets),
    )
    values = measures.columns("d", counted)
    assert values["inference.requests{d}"] == 100
    assert values["inference.cache.hits{d}"] == 3
    assert values["inference.queue.depth{d}"] == 2
    assert values["inference.latency.mean{d}"] == 0.002
    assert values["inference.compute.duration{d}"] == 0.002
    assert 0.0004 < float(values["inference.latency.p50{d}"] or 0) < 0.0016
    assert 0.02 < float(values["inference.latency.p99{d}"] or 0) < 0.06
    assert "inference.errors{d}" not in values
    assert measures.columns("d", Snapshot()) == {"inference.requests{d}": 0}


@given(st.lists(st.integers(1, 20), max_size=40))
def test_no_point_is_wider_than_a_batch_may_be(widths: list[int]) -> None:
    rows = [{f"m{i}.{j}": 1 for j in range(width)} for i, width in enumerate(widths)]
    made = measures.points(rows)
    assert all(len(point) <= MAX_COLUMNS for point in made)
    assert {name for point in made for name in point} == {name for row in rows for name in row}


def test_this_machine_has_a_processor_memory_and_a_disk(tmp_path: Path) -> None:
    meter = system.SystemMeter(tmp_path)
    values = meter.read([os.getpid(), 1 << 22])
    assert 0 < values["system.memory.usage"] < values["system.memory.limit"]
    assert values["process.memory.usage"] > 1 << 20
    assert values["system.filesystem.free"] >= 0
    assert values["process.cpu.utilization"] >= 0
    assert set(values) <= set(measures.UNITS)
    birth = system.birth()
    assert birth["cores"] >= 1
    assert birth["memory_bytes"] == values["system.memory.limit"]
    assert set(birth["metrics"]) == set(measures.UNITS)
