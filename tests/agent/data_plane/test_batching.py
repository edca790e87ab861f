"""Batching: the rules as properties, and the thread with engines of its own making."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farrier_agent.batching import rules
from farrier_agent.batching.batcher import Batcher, Job, LateError, RejectedError
from farrier_agent.stats import Stats
from farrier_contracts.bundle import Artifact, Batching, BatchPoint, Manifest
from farrier_contracts.tensors import TensorSpec


@dataclass(frozen=True)
class Ask:
    number: int
    signature: str
    rows: int


asks = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), min_size=1, max_size=30).map(
    lambda items: [Ask(number, *item) for number, item in enumerate(items)]
)


@given(asks, st.integers(1, 8))
def test_every_request_is_taken_once_in_batches_that_fit_together(requests, max_rows):
    waiting, taken = deque(requests), []
    while waiting:
        oldest = waiting[0]
        batch = rules.take(waiting, max_rows)
        assert batch[0] is oldest
        assert len({ask.signature for ask in batch}) == 1
        assert len(batch) == 1 or sum(ask.rows for ask in batch) <= max_rows
        assert [ask.number for ask in waiting] == sorted(ask.number for ask in waiting)
        taken += batch
    assert sorted(taken, key=lambda ask: ask.number) == requests
    for signature in "abc":
        numbers = [ask.number for ask in taken if ask.signature == signature and ask.rows == 1]
        assert numbers == sorted(numbers)


@given(asks, st.integers(1, 8))
def test_a_batch_leaves_none_behind_that_would_have_fitted(requests, max_rows):
    waiting = deque(requests)
    batch = rules.take(waiting, max_rows)
    left = max_rows - sum(ask.rows for ask in batch)
    if len(batch) > 1 or batch[0].rows < max_rows:
        behind = [ask for ask in waiting if ask.signature == batch[0].signature]
        assert not [ask for ask in behind if ask.rows <= left]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=8), st.integers(0, 3))
def test_parting_undoes_joining(rows, width):
    random = np.random.default_rng(sum(rows))
    requests = [{"a": random.normal(size=(n, width)), "b": random.integers(0, 9, (n, 2, 2))} for n in rows]
    for request, part in zip(requests, rules.part(rules.join(requests), rows)):
        for name, array in request.items():
            np.testing.assert_array_equal(part[name], array)
            assert part[name].dtype == array.dtype


@pytest.mark.parametrize("shape", [(), (1,), (4, 2), (2, 3)])
def test_outputs_without_a_row_per_input_row_are_not_parted(shape):
    with pytest.raises(ValueError, match="row"):
        rules.part({"y": np.zeros(shape)}, [1, 2])


@pytest.mark.parametrize(
    ("profile", "max_batch", "want"),
    [
        ([], 16, 1),
        ([(1, 1.0), (2, 2.1), (4, 4.4)], 16, 1),
        ([(1, 1.0), (2, 1.2), (4, 2.0), (8, 4.0), (16, 9.0)], 16, 8),
        ([(1, 1.0), (2, 1.2), (4, 2.0), (8, 4.0), (16, 9.0)], 4, 4),
        ([(1, 1.0), (2, 1.2), (4, 2.0), (8, 4.06), (16, 8.4)], 16, 8),
    ],
)
def test_only_batches_that_measurement_has_proved_are_used(profile, max_batch, want):
    points = tuple(BatchPoint(batch, ms) for batch, ms in profile)
    assert rules.useful_batch(Batching(max_batch, points)) == want


@pytest.mark.parametrize(
    ("shapes", "want"), [([(-1, 3), (-1, 2)], 2), ([(1, 3), (-1, 2)], 1), ([(-1, 3), ()], 1)]
)
def test_rows_are_joined_only_where_axis_0_is_free_everywhere(shapes, want):
    specs = [TensorSpec(str(number), "FP32", shape) for number, shape in enumerate(shapes)]
    batching = Batching(2, (BatchPoint(1, 1.0), BatchPoint(2, 1.1)))
    artifact = (Artifact("m", "null", "null", "fp32", "null"),)
    manifest = Manifest("m", "1", tuple(specs[:1]), tuple(specs[1:]), artifact, batching=batching)
    assert rules.largest_batch(manifest) == want


class Gate:
    """An engine that doubles its input, waits for leave before its first run, and dislikes negative numbers."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def run(self, inputs):
        self.entered.set()
        assert self.leave.wait(60)
        self.sizes.append(len(inputs["x"]))
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return {"y": inputs["x"] * 2}


@pytest.fixture
def gate():
    gate = Gate()
    with Stats.anonymous() as stats:
        batcher = Batcher(gate.run, max_rows=8, queue_limit=20, stats=stats)
        gate.stats, gate.batcher = stats, batcher
        yield gate
        gate.leave.set()
        batcher.close()


def submit(gate, values, done, **more):
    gate.batcher.put(Job({"x": np.array(values, np.float64)}, len(values), done, **more))


def test_what_gathers_during_a_run_runs_as_one(gate, eventually):
    finished: list[Job] = []
    submit(gate, [0.0], finished.append)
    assert gate.entered.wait(60)
    for number in range(1, 13):
        submit(gate, [float(number)], finished.append)
    gate.leave.set()
    eventually(lambda: len(finished) == 13)
    assert gate.sizes == [1, 8, 4]
    assert [job.outputs["y"][0] for job in finished] == [2.0 * n for n in range(13)]
    seen = gate.stats.read()
    assert (seen.executions, seen.items) == (3, 13)
    assert seen.queue_sum_ns > 0


def test_a_bad_request_harms_only_itself(gate, eventually):
    finished: list[Job] = []
    submit(gate, [0.0], finished.append)
    assert gate.entered.wait(60)
    for value in (1.0, -1.0, 3.0):
        submit(gate, [value], finished.append)
    gate.leave.set()
    eventually(lambda: len(finished) == 4)
    assert [None if job.error else job.outputs["y"][0] for job in finished] == [0.0, 2.0, None, 6.0]
    assert str(finished[2].error) == "negative"


def test_a_late_request_is_not_run(gate, eventually):
    finished: list[Job] = []
    submit(gate, [0.0], finished.append)
    assert gate.entered.wait(60)
    submit(gate, [1.0], finished.append, deadline_ns=0)
    submit(gate, [2.0], finished.append)
    gate.leave.set()
    eventually(lambda: len(finished) == 3)
    assert isinstance(finished[1].error, LateError)
    assert finished[2].outputs["y"] == [4.0]
    assert sum(gate.sizes) == 2


def test_a_full_queue_rejects(gate, eventually):
    finished: list[Job] = []
    submit(gate, [0.0], finished.append)
    assert gate.entered.wait(60)
    for _ in range(20):
        submit(gate, [1.0], finished.append)
    with pytest.raises(RejectedError, match="20 requests wait"):
        submit(gate, [1.0], finished.append)
    gate.leave.set()
    eventually(lambda: len(finished) == 21)


def test_closing_answers_what_waits(gate):
    finished: list[Job] = []
    for _ in range(5):
        submit(gate, [1.0], finished.append)
    gate.leave.set()
    gate.batcher.close()
    assert len(finished) == 5
    assert all(job.outputs is not None for job in finished)


def test_progress_shows_work_and_rest(gate, eventually):
    assert gate.batcher.progress is None
    submit(gate, [1.0], lambda job: None)
    assert gate.entered.wait(60)
    assert gate.batcher.progress == 0
    gate.leave.set()
    eventually(lambda: gate.batcher.progress is None)
