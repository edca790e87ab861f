"""Statistics: counters that outlive their writer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_agent import stats
from farrier_agent.stats import BOUNDS_NS, Stats
from farrier_contracts.errors import InputError


@given(st.integers(0, 1 << 40))
def test_a_bucket_holds_the_durations_between_its_bounds(duration_ns):
    index = stats.bucket(duration_ns)
    assert index == len(BOUNDS_NS) or duration_ns <= BOUNDS_NS[index]
    assert index == 0 or duration_ns > BOUNDS_NS[index - 1]


@given(st.lists(st.integers(0, BOUNDS_NS[-1]), min_size=1, max_size=200), st.floats(0.0, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(durations, q):
    buckets = [0] * stats.BUCKET_COUNT
    for duration in durations:
        buckets[stats.bucket(duration)] += 1
    estimate = stats.quantile(buckets, q)
    rank = q * len(durations)
    true = sorted(durations)[max(0, -int(-rank // 1) - 1)]
    index = stats.bucket(true)
    assert (BOUNDS_NS[index - 1] if index else 0) <= estimate <= BOUNDS_NS[index]


def test_quantiles_of_nothing_are_zero():
    assert stats.quantile([0] * stats.BUCKET_COUNT, 0.5) == 0


def test_a_reader_sees_what_the_writer_counts(tmp_path: Path):
    with Stats.create(tmp_path / "s") as writer, Stats.open(tmp_path / "s") as reader:
        writer.add("requests")
        writer.add("items", 3)
        writer.set("queue_depth", 2)
        writer.observe(70_000)
        seen = reader.read()
    assert (seen.requests, seen.items, seen.queue_depth) == (1, 3, 2)
    assert (seen.duration_sum_ns, seen.duration_max_ns, seen.buckets[1]) == (70_000, 70_000, 1)


def test_a_killed_writer_loses_nothing(tmp_path: Path):
    path = tmp_path / "s"
    code = (
        "import sys; from pathlib import Path; from farrier_agent.stats import Stats\n"
        "s = Stats.create(Path(sys.argv[1]))\n"
        "for _ in range(1000): s.add('requests'); s.observe(60_000)\n"
        "s.set('in_flight', 4); print('done', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        os.kill(process.pid, signal.SIGKILL)
    with Stats.attach(path) as again:
        again.add("requests")
        seen = again.read()
    assert (seen.requests, seen.buckets[1], seen.in_flight) == (1001, 1000, 0)


def test_a_reader_cannot_write(tmp_path: Path):
    Stats.create(tmp_path / "s").close()
    with Stats.open(tmp_path / "s") as reader, pytest.raises(TypeError):
        reader.add("requests")


@pytest.mark.parametrize("content", [b"", b"x" * 10, b"y" * 288, None])
def test_a_foreign_file_is_refused_by_readers_and_replaced_by_writers(tmp_path: Path, content):
    path = tmp_path / "s"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="s"):
        Stats.open(path)
    with Stats.attach(path) as fresh:
        assert fresh.read() == stats.Snapshot()
