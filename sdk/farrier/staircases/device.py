"""A device that an agent was flashed to, as a bench for the latency staircase: it times what is sent to it over SSH."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from farrier_contracts import targets
from farrier_contracts.errors import FarrierError, UsageError
from farrier_contracts.targets import Target
from farrier_converters.pruning.staircase import turns
from farrier_converters.pruning.staircase.machine import machine
from farrier_converters.pruning.staircase.measure import Bench, choose

from ..flashing import steps
from ..flashing.ssh import Connection, Output, Remote
from . import MEASURED_AFAR

CPUINFO_LIMIT_S = 30
CPUINFO_MAX_BYTES = 65536
SLACK_S = 600  # besides the limit of a plan: for sending networks over a slow link, and opening them
MOST_WORDS = 200  # characters of a version or a reason from the device
MOST_NS = 10**12
_CPUINFO = f"uname -m; head -c {CPUINFO_MAX_BYTES} /proc/cpuinfo 2>/dev/null; true"
# $1: the agent's Python. All is done in a folder of its own, which goes with the connection too: a broken pipe ends it.
_TIME = """
set -u
umask 077
folder=$(mktemp -d -t farrier-time.XXXXXX) || exit 1
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' HUP INT TERM PIPE
tar -xmf - -C "$folder" && [ -f "$folder/complete" ] || { echo "the networks did not arrive whole" >&2; exit 1; }
cd "$folder" && "$1" on_device.py plan.json </dev/null
"""


@contextmanager
def connected(
    remote: Remote, target: Target | None, engine: str, precision: str, *, prefix: str = ""
) -> Iterator[tuple[Bench, Target]]:
    """Connect to a device, and give it as a bench with the target that its networks are built for.

    Without `target` that is the generic one of the device's processor. Raises UsageError for an engine or precision
    that is not measured there, FarrierError where the device cannot be reached or no agent is on it.
    """
    if engine not in MEASURED_AFAR:
        raise UsageError(
            f"on a device these engines are measured: {', '.join(MEASURED_AFAR)}; not {engine!r:.80}"
        )
    if target is not None:
        choose(target, engine, precision)  # before anybody connects
    with Connection(remote) as connection:
        python = _python(connection, remote, prefix)
        arch, _, cpuinfo = connection.run(_CPUINFO, limit_s=CPUINFO_LIMIT_S).stdout.partition("\n")
        board = target or targets.host(arch.strip(), cpuinfo)
        toolchain = choose(board, engine, precision)
        timer = _Timer(connection, remote.destination, python)
        yield Bench(machine(cpuinfo, arch.strip()[:MOST_WORDS]), toolchain, timer), board


def _python(connection: Connection, remote: Remote, prefix: str) -> str:
    """Return the interpreter of the agent on the device."""
    places = steps.look(connection, prefix).places
    for place, found in places.items():
        if found.release:
            return f"{place}/current/venv/bin/python"
    where = f" in {prefix}" if prefix else ""
    raise FarrierError(
        f"no agent is installed{where} on {remote.destination}; install one with: farrier flash {remote.destination}"
    )


@dataclass(frozen=True)
class _Timer:
    """Sends the artifacts of a plan to the device, and reads what it says."""

    connection: Connection
    destination: str
    python: str

    def __call__(self, plan: Mapping[str, Any], progress: Callable[[float], None]) -> tuple[list[int], str]:
        last: dict[str, Any] = {}

        def on_line(line: str) -> None:
            nonlocal last
            last = _message(line) or last
            if isinstance(last.get("share"), float):
                progress(min(max(last["share"], 0.0), 1.0))

        output = self.connection.run(
            _TIME, [self.python], limit_s=plan["limit_s"] + SLACK_S, feed=lambda pipe: _send(pipe, plan),
            on_line=on_line,
        )  # fmt: skip
        ns, version = _times(last.get("ns"), len(plan["artifacts"])), last.get("engine")
        if output.code or ns is None or not isinstance(version, str):
            raise FarrierError(f"{self.destination} could not time {plan['engine']}: {_reason(last, output)}")
        return ns, f"{plan['engine']} {version[:MOST_WORDS]}"


def _send(pipe: BinaryIO, plan: Mapping[str, Any]) -> None:
    """Write a tar of the artifacts, the programs that time them, and the plan, with paths as they are there."""
    sent = {**plan, "artifacts": [
        {**item, "path": f"{index}{Path(item['path']).suffix}"} for index, item in enumerate(plan["artifacts"])
    ]}  # fmt: skip
    own = Path(__file__).parent / "on_device.py"
    texts = {
        "on_device.py": own.read_bytes(),
        "turns.py": Path(turns.__file__).read_bytes(),
        "plan.json": json.dumps(sent).encode(),
    }
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for item, there in zip(plan["artifacts"], sent["artifacts"], strict=True):
            _add(tar, there["path"], Path(item["path"]).read_bytes())
        for name, content in texts.items():
            _add(tar, name, content)
        _add(tar, "complete", b"")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    tar.addfile(member, io.BytesIO(content))


def _message(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _times(found: Any, count: int) -> list[int] | None:
    """Return what a device calls times, where they can be."""
    if not isinstance(found, list) or len(found) != count:
        return None
    return found if all(type(ns) is int and 0 < ns <= MOST_NS for ns in found) else None


def _reason(last: Mapping[str, Any], output: Output) -> str:
    said = last.get("error")
    lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
    text = said if isinstance(said, str) else lines[-1] if lines else f"exit code {output.code}"
    return " ".join(text.split())[:MOST_WORDS]
