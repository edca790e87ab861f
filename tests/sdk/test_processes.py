"""Child processes end with their block, however it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from farrier.processes import ProcessGroup
from farrier_contracts.errors import FarrierError


def alive(pid: int) -> bool:
    """Say whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_leaving_the_block_ends_every_child(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        pids = [
            group.start(f"web{n}", ["http.server", "0", "--bind", "127.0.0.1"]).process.pid for n in (1, 2)
        ]
        assert all(map(alive, pids))
    assert not any(map(alive, pids))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python has it, whatever a test before this one left behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_inside_the_block_ends_every_child(tmp_path: Path) -> None:
    pid = 0
    with pytest.raises(KeyboardInterrupt), ProcessGroup(tmp_path) as group:
        pid = group.start("web", ["http.server", "0", "--bind", "127.0.0.1"]).process.pid
        os.kill(os.getpid(), signal.SIGINT)
        group.wait_until(lambda: False, what="waiting for the signal", limit_s=5)
    assert pid and not alive(pid)


def test_a_child_that_stops_early_is_named_with_its_last_words(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("server", ["http.server", "not-a-port"])
        with pytest.raises(FarrierError, match=r"server stopped while starting: (.|\n)*not-a-port"):
            group.wait_until(lambda: False, what="starting", limit_s=30)


def test_a_condition_that_never_holds_is_given_up(tmp_path: Path) -> None:
    with ProcessGroup(tmp_path) as group:
        group.start("server", ["http.server", "0", "--bind", "127.0.0.1"])
        with pytest.raises(FarrierError, match=r"starting took longer than 0\.1 s"):
            group.wait_until(lambda: False, what="starting", limit_s=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux")
def test_children_end_when_their_parent_is_killed(tmp_path: Path, eventually: Callable[..., object]) -> None:
    code = (
        "import sys, pathlib; from farrier.processes import ProcessGroup\n"
        f"group = ProcessGroup(pathlib.Path({str(tmp_path)!r}))\n"
        "print(group.start('web', ['http.server', '0', '--bind', '127.0.0.1']).process.pid, flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.kill()
    eventually(lambda: not alive(pid), limit_s=10, what="the child ends")
