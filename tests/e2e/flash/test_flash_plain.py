"""The plain supervisor of hosts without systemd, on its own: it keeps any program running in the agent's place."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from farrier.flashing.device import script

AGENT = """#!/bin/sh
# stands where the agent would: notes each start, and then does as the test says
echo "$$ $*" >>"{prefix}/starts"
[ -f "{prefix}/crash" ] && exit 7
[ -f "{prefix}/chatter" ] && head -c 3000000 /dev/zero | tr '\\0' x
trap 'echo ended >>"{prefix}/starts"; exit 0' TERM
while :; do sleep 0.1; done
"""


class Prefix:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.control = folder / "bin" / "farrier-agentctl"
        program = folder / "current" / "venv" / "bin" / "farrier-agent"
        for path, text in (
            (self.control, script("farrier-agentctl")),
            (program, AGENT.format(prefix=folder)),
        ):
            path.parent.mkdir(parents=True)
            path.write_text(text)
            path.chmod(0o755)

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "FARRIER_LOG_CHECK_S": "0.1"}
        return subprocess.run(
            [str(self.control), *arguments], capture_output=True, text=True, timeout=60, check=False, env=env
        )

    @property
    def starts(self) -> list[str]:
        path = self.folder / "starts"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def log(self) -> str:
        path = self.folder / "log" / "agent.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture
def prefix(tmp_path: Path, eventually) -> Iterator[Prefix]:
    made = Prefix(tmp_path)
    yield made
    made.ctl("stop")
    eventually(lambda: str(tmp_path) not in processes(), limit_s=20, what="no process is left")


def processes() -> str:
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_start_status_stop(prefix, eventually):
    assert prefix.ctl("status").returncode == 3
    assert prefix.ctl("start").returncode == 0
    eventually(lambda: prefix.starts, what="the agent starts")
    assert prefix.ctl("status").stdout.startswith("running")
    assert prefix.ctl("start").stdout.startswith("running")  # a second start changes nothing
    assert prefix.starts[0].endswith(f"run --config {prefix.folder}/etc/agent.toml")
    assert prefix.ctl("stop").returncode == 0
    assert prefix.starts[-1] == "ended"  # it was asked to, not killed
    assert len(prefix.starts) == 2
    assert prefix.ctl("status").returncode == 3
    assert prefix.ctl("stop").returncode == 0


def test_a_killed_agent_is_started_again(prefix, eventually):
    prefix.ctl("start")
    eventually(lambda: prefix.starts, what="the agent starts")
    os.kill(int(prefix.starts[0].split()[0]), signal.SIGKILL)
    eventually(lambda: len(prefix.starts) == 2, what="it starts again")
    assert "exit code 137; starting it again in 1 s" in prefix.log


def test_a_crashing_agent_is_started_with_growing_pauses(prefix, eventually):
    (prefix.folder / "crash").touch()
    prefix.ctl("start")
    eventually(lambda: "again in 2 s" in prefix.log, what="the second pause")
    assert "exit code 7; starting it again in 1 s" in prefix.log
    prefix.ctl("stop")  # in the middle of a pause
    assert prefix.ctl("status").returncode == 3


def test_the_log_is_bounded(prefix, eventually):
    (prefix.folder / "chatter").touch()
    prefix.ctl("start")
    older = prefix.folder / "log" / "agent.log.1"
    eventually(lambda: older.exists() and len(prefix.log) <= 1 << 20, what="the log is cut")
    assert older.stat().st_size <= 1 << 20
    assert len(prefix.starts) == 1


def test_a_stale_pid_file_is_no_running_agent(prefix):
    (prefix.folder / "run").mkdir()
    (prefix.folder / "run" / "supervise.pid").write_text(str(os.getpid()))
    assert prefix.ctl("status").returncode == 3
    assert prefix.ctl("stop").returncode == 0  # and it did not stop this process


def test_wrong_usage(prefix):
    done = prefix.ctl("dance")
    assert done.returncode == 2
    assert "usage" in done.stderr


def test_it_is_the_same_agent_through_a_symbolic_link(prefix, tmp_path, eventually):
    prefix.ctl("start")
    eventually(lambda: prefix.starts, what="the agent starts")
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(tmp_path)
    status = subprocess.run(
        [link / "bin" / "farrier-agentctl", "status"], capture_output=True, text=True, check=False
    )
    assert status.stdout.startswith("running")
