"""The steps of a flash that touch the device: look, install, activate, and read its log."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from farrier_contracts.errors import FarrierError

from . import unit
from .config import DeviceFile
from .device import LOG, script
from .facts import Facts, parse
from .plan import Plan
from .ssh import Connection, Output
from .wheels.wheelhouse import Wheelhouse

PROBE_LIMIT_S = 60
INSTALL_LIMIT_S = 1800  # a slow card and a slow uplink together
ACTIVATE_LIMIT_S = 180
LOG_LIMIT_S = 20
LOG_LINES = 15
_FULL = ("No space left on device", "Disk quota exceeded", "Errno 28")


@dataclass(frozen=True)
class Installed:
    """A release on the device. `agent` is what `farrier-agent version` printed there, empty for a kept release."""

    number: int
    agent: str = ""


def look(connection: Connection, prefix: str) -> Facts:
    """Return the device's facts."""
    output = connection.run(script("probe.sh"), [prefix], limit_s=PROBE_LIMIT_S)
    return parse(output.stdout)


def install(
    connection: Connection, plan: Plan, wheels: Wheelhouse, *, on_step: Callable[[str], None]
) -> Installed:
    """Upload the wheels and install them as a new release; what runs on the device goes on running."""
    wanted = wheels.installed_bytes
    if plan.place.free_bytes < wanted:
        raise FarrierError(
            f"{plan.prefix} on the device has {plan.place.free_bytes >> 20} MiB free and the agent needs "
            f"{wanted >> 20} MiB; free some space or choose another folder with --prefix"
        )

    def feed(pipe: BinaryIO) -> None:
        texts = [("requirements.txt", wheels.requirements.encode()), ("complete", b"")]
        _write_tar(pipe, files=wheels.files, texts=[DeviceFile(name, data, 0o644) for name, data in texts])

    output = connection.run(
        script("install.sh"),
        [plan.prefix, plan.python, wheels.digest],
        limit_s=INSTALL_LIMIT_S, elevate=plan.elevate, feed=feed,
        on_line=lambda line: on_step(line.removeprefix("step ")) if line.startswith("step ") else None,
    )  # fmt: skip
    _check(output, plan)
    said = dict(line.split(" ", 1) for line in output.stdout.splitlines() if " " in line)
    return Installed(int(said["release"]), said.get("agent", ""))


def activate(
    connection: Connection, plan: Plan, number: int, configuration: Iterable[DeviceFile]
) -> list[str]:
    """Write the configuration, make a release the current one and start it; return the script's notes."""
    configured = list(configuration)
    files = [*configured, _service_file(plan, configured), DeviceFile("complete", b"", 0o644)]
    output = connection.run(
        script("activate.sh"),
        [plan.prefix, str(number), plan.service, "1" if plan.at_boot else "0", plan.state_dir],
        limit_s=ACTIVATE_LIMIT_S, elevate=plan.elevate, feed=lambda pipe: _write_tar(pipe, texts=files),
    )  # fmt: skip
    _check(output, plan)
    return [
        line.removeprefix("step note: ")
        for line in output.stdout.splitlines()
        if line.startswith("step note: ")
    ]


def log_lines(connection: Connection, plan: Plan) -> list[str]:
    """Return the last lines of the agent's log on the device, without empty ones."""
    output = connection.run(
        LOG, [plan.prefix, plan.service, str(LOG_LINES)], limit_s=LOG_LIMIT_S, elevate=plan.elevate
    )
    return [line for line in output.stdout.splitlines() if line.strip()]


def _service_file(plan: Plan, configuration: Iterable[DeviceFile]) -> DeviceFile:
    if plan.service == "systemd":
        secrets = [Path(file.path).name for file in configuration if not file.mode & 0o044]
        text = unit.render(plan.prefix, systemd=plan.systemd, groups=plan.groups, credentials=secrets)
        return DeviceFile("farrier-agent.service", text.encode(), 0o644)
    return DeviceFile("bin/farrier-agentctl", script("farrier-agentctl").encode(), 0o755)


def _write_tar(pipe: BinaryIO, *, files: Iterable[Path] = (), texts: Iterable[DeviceFile] = ()) -> None:
    """Write a tar of files by their names, then of texts, in this order; owned by whoever unpacks it."""
    with tarfile.open(fileobj=pipe, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for path in files:
            with path.open("rb") as file:
                tar.addfile(_member(path.name, path.stat().st_size, 0o644), file)
        for text in texts:
            tar.addfile(_member(text.path, len(text.content), text.mode), io.BytesIO(text.content))


def _member(name: str, size: int, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def _check(output: Output, plan: Plan) -> None:
    if output.code == 0:
        return
    lines = [line.strip() for line in output.stderr.splitlines() if line.strip()]
    if any(sign in line for line in lines for sign in _FULL):
        raise FarrierError(
            f"the device's disk is full at {plan.prefix}; free some space or choose another folder with --prefix; "
            "what ran before still runs"
        )
    cause = "; ".join([lines[-1], *lines[:-1][-1:]]) if lines else f"exit code {output.code}"
    raise FarrierError(f"the device said: {cause[:400]}")
