from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from farrier_agent.spool import Spool, records, rules
from farrier_contracts.wire.telemetry import Batch, Clock, Point, advance, from_document, to_document

CLOCK = Clock(5, 1_700_000_000_000_000_000)
SMALL_BYTES = 16 * 160  # segments of 160 bytes: two or three points each


def open_spool(folder: Path, *, boot: str = "b", max_bytes: int = 1 << 20) -> Spool:
    return Spool(folder, boot=boot, max_bytes=max_bytes, clock=lambda: CLOCK)


def numbers(ranges: object) -> set[int]:
    return {n for first, last in ranges for n in range(first, last + 1)}  # type: ignore[attr-defined]


def test_points_come_back_as_they_were(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    rows = [{"a": 1, "b": 2.5}, {"a": 2}, {"a": 3, "c": -7}]
    for index, row in enumerate(rows):
        spool.append("inference", 1000 + index, row)
    spool.close()
    recovered = open_spool(tmp_path, boot="next")
    (old,) = recovered.old
    assert old.streams["inference"].read(0, 10) == [Point(i, 1000 + i, row) for i, row in enumerate(rows)]
    assert old.streams["inference"].newest_clock == CLOCK
    recovered.close()


def test_a_settled_run_leaves_nothing(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append("system", 1, {"a": 1})
    spool.acknowledge("b", "system", 0)
    spool.close(settled=True)
    assert list(tmp_path.iterdir()) == []


def test_an_acknowledgement_beyond_the_live_end_is_cut(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    spool.append("system", 1, {"a": 1})
    spool.acknowledge("b", "system", 1 << 40)
    spool.append("system", 2, {"a": 2})
    assert spool.current.streams["system"].produced == 2
    assert [p.seq for p in spool.current.streams["system"].read(0, 9)] == [1]
    spool.close()


def test_what_a_power_cut_took_after_it_was_sent_counts_as_produced(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    for index in range(4):
        spool.append("system", index, {"a": index})
    spool.close()
    (segment,) = tmp_path.rglob("*.seg")
    os.truncate(segment, segment.stat().st_size - 1)
    recovered = open_spool(tmp_path, boot="next")
    assert recovered.old[0].streams["system"].produced == 3
    recovered.acknowledge("b", "system", 3)
    assert recovered.old[0].streams["system"].produced == 4
    assert recovered.old[0].empty
    recovered.close()


@given(st.binary(max_size=400), st.integers(0, 1000))
def test_any_bytes_decode_to_some_points(tail: bytes, first: int) -> None:
    encoder = records.Encoder()
    good = records.header(CLOCK) + encoder.encode(Point(first, 1, {"x": 1}))
    for data in (tail, good + tail):
        clock, points, whole = records.decode(data, first=first)
        assert whole <= len(data)
        assert (clock is None) <= (not points)
    assert points[0] == Point(first, 1, {"x": 1})


class SpoolMachine(RuleBasedStateMachine):
    """Appends, sends, acknowledgements, budgets and crashes in any order: every number stays accounted for."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.boots = 0
        self.produced: dict[str, dict[str, int]] = {}  # boot -> stream -> how many were appended and kept
        self.stored: dict[tuple[str, str], set[int]] = {}
        self.acked: dict[tuple[str, str], int] = {}

    @initialize()
    def start(self) -> None:
        self.boots += 1
        self.boot = f"b{self.boots}"
        self.produced[self.boot] = dict.fromkeys(rules.STREAMS, 0)
        self.spool = open_spool(self.folder, boot=self.boot, max_bytes=SMALL_BYTES)

    @rule(stream=st.sampled_from(rules.STREAMS), count=st.integers(1, 12))
    def append(self, stream: str, count: int) -> None:
        for _ in range(count):
            number = self.produced[self.boot][stream]
            self.spool.append(stream, number * 1000, {"value": number, "other": 0.5})
            assert self.spool.current.streams[stream].produced == number + 1
            self.produced[self.boot][stream] += 1

    @rule(data=st.data(), limit=st.integers(1, 5), skip=st.integers(0, 6), answered=st.booleans())
    def send(self, data: st.DataObject, limit: int, skip: int, answered: bool) -> None:
        boot = data.draw(st.sampled_from(self.spool.boots))
        name = data.draw(st.sampled_from(sorted(boot.streams)))
        stream = boot.streams[name]
        points = stream.read(stream.acknowledged + 1 + skip, limit)
        if not points:
            return
        batch = from_document(to_document(Batch(boot.name, stream.low, CLOCK, tuple(points))))
        for point in batch.points:
            assert point.values["value"] == point.seq
        key = (boot.name, name)
        self.stored.setdefault(key, set()).update(range(batch.first, batch.last + 1))
        reached = advance(self.acked.get(key, -1), batch.first, batch.last, batch.low)
        self.acked[key] = reached
        if answered and reached >= 0:
            self.spool.acknowledge(boot.name, name, reached)

    @rule()
    def kill(self) -> None:
        self.spool.close()  # closes descriptors only: nothing is written that was not before
        self.start()

    @rule(data=st.data())
    def power_cut(self, data: st.DataObject) -> None:
        self.spool.close()
        growing = sorted(self.spool.current.folder.rglob("*.seg"))
        if growing:
            path = data.draw(st.sampled_from([p for p in growing if p.name == max(growing_names(p.parent))]))
            os.truncate(path, data.draw(st.integers(0, path.stat().st_size)))
        old = self.spool.current
        self.start()
        for name in rules.STREAMS:
            kept = next((b.streams[name].produced for b in self.spool.old if b.name == old.name), 0)
            assert kept <= self.produced[old.name][name]
            self.produced[old.name][name] = kept

    @precondition(lambda self: self.spool.old)
    @rule()
    def forget(self) -> None:
        for boot in [b for b in self.spool.old if b.empty]:
            self.check(boot)
            self.spool.forget(boot)

    @invariant()
    def accounted(self) -> None:
        if not hasattr(self, "spool"):
            return
        assert self.spool.size <= SMALL_BYTES
        for boot in self.spool.boots:
            self.check(boot)

    def check(self, boot: object) -> None:
        for statement in boot.statements():  # type: ignore[attr-defined]
            stream = boot.streams[statement.stream]  # type: ignore[attr-defined]
            held = {n for s in stream.segments for n in range(s.first, s.last + 1)}
            stored = self.stored.get((statement.boot, statement.stream), set())
            dropped = numbers(statement.dropped)
            assert statement.produced >= self.produced[statement.boot][statement.stream]
            assert set(range(statement.produced)) <= held | stored | dropped
            assert not dropped & held
            assert max(dropped, default=-1) < statement.produced

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()
        shutil.rmtree(self.folder)


def growing_names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*.seg")]


SpoolMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestSpoolMachine = SpoolMachine.TestCase


WRITER = """
import sys
from pathlib import Path
from farrier_agent.spool import Spool
spool = Spool(Path(sys.argv[1]), boot="killed", max_bytes=1 << 20)
number = 0
while True:
    spool.append("inference", number, {"value": number, "other": 1.5})
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("lines", [1, 150, 3000])
def test_kill_9_loses_no_appended_point(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) as child:
        assert child.stdout
        for _ in range(lines):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split(b"\n")
    seen = max([lines, *(int(line) for line in rest[:-1] if line)])
    recovered = open_spool(tmp_path, boot="next")
    stream = recovered.old[0].streams["inference"]
    assert stream.produced >= seen
    assert stream.dropped == ()
    first, values = 0, []
    while points := stream.read(first, 500):
        values += [p.values["value"] for p in points]
        first = points[-1].seq + 1
    assert values == list(range(stream.produced))
    recovered.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("mounting a small file system needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount is not allowed here: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_drops_the_least_valuable_and_says_so(tiny_disk: Path) -> None:
    spool = open_spool(tiny_disk, max_bytes=1 << 20)
    for index in range(300):
        spool.append("inference", index, {"value": index})
    for index in range(4000):
        spool.append("system", index, {"value": index, "wide.name.of.a.metric": index * 1.5})
    (tiny_disk / "hog").write_bytes(b"")
    spool.append("inference", 1, {"value": 300})
    states = {s.stream: s for s in spool.current.statements()}
    assert states["inference"].dropped == ()
    assert states["system"].lost > 0
    produced = states["system"].produced
    spool.close()

    recovered = open_spool(tiny_disk, boot="next", max_bytes=1 << 20)
    (old,) = recovered.old
    stream = old.streams["system"]
    held = {n for s in stream.segments for n in range(s.first, s.last + 1)}
    assert held | numbers(stream.dropped) >= set(range(stream.produced))
    assert produced - stream.produced <= 1
    recovered.close()


def test_a_disk_filled_by_someone_else_is_counted_in_memory_and_written_later(tiny_disk: Path) -> None:
    spool = open_spool(tiny_disk, max_bytes=1 << 20)
    hog = tiny_disk / "hog"
    with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(b"x" * 4096)
    for index in range(20):
        spool.append("system", index, {"value": index})
    stream = spool.current.streams["system"]
    assert stream.produced == 20
    assert stream.dropped == ((0, 19),)
    hog.unlink()
    spool.append("system", 20, {"value": 20})
    spool.close()
    recovered = open_spool(tiny_disk, boot="next", max_bytes=1 << 20)
    assert recovered.old[0].streams["system"].dropped == ((0, 19),)
    assert recovered.old[0].streams["system"].produced == 21
    recovered.close()
