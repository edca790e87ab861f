"""What a device says about itself: the probe's lines, read back from hostile input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from farrier_contracts.errors import FarrierError

PROBE_MAX_BYTES = 64 << 10
_VALUE_MAX_CHARACTERS = 1024


@dataclass(frozen=True)
class Python:
    """One interpreter on the device. `complete`: it has venv, ssl and ctypes. `bits` is its pointer size."""

    path: str
    version: tuple[int, int]
    bits: int
    complete: bool


@dataclass(frozen=True)
class Place:
    """A folder that an agent may be installed in, and what is installed there already."""

    free_bytes: int
    release: int = 0  # 0: none
    digest: str = ""
    device: str = ""


@dataclass(frozen=True)
class Facts:
    """Everything that decides how a device is flashed. `systemd` is its version where it runs, else 0."""

    kernel: str = ""
    arch: str = ""
    hostname: str = ""
    root: bool = False
    sudo: bool = False
    home: str = ""
    same_machine: bool = False
    libc: str = ""
    libc_version: tuple[int, int] = (0, 0)
    pythons: tuple[Python, ...] = ()
    memory_bytes: int = 0
    systemd: int = 0
    tools: frozenset[str] = frozenset()
    groups: tuple[str, ...] = ()
    places: Mapping[str, Place] = field(default_factory=lambda: MappingProxyType({}))


def parse(text: str) -> Facts:
    """Return the facts in the probe's output; unknown keys are passed over.

    Raises FarrierError where the probe did not come to its end.
    """
    lines = [line.split("=", 1) for line in text[:PROBE_MAX_BYTES].splitlines() if "=" in line]
    pairs = [(key, value.strip()) for key, value in lines if len(value) <= _VALUE_MAX_CHARACTERS]
    one = dict(pairs)
    if "end" not in one:
        raise FarrierError(
            "the device did not answer the probe to its end; is its login shell a POSIX shell?"
        )
    libc, _, libc_version = one.get("libc", "").partition(" ")
    return Facts(
        kernel=one.get("kernel", ""),
        arch=one.get("arch", ""),
        hostname=one.get("hostname", ""),
        root=one.get("uid") == "0",
        sudo=one.get("sudo") == "1",
        home=one.get("home", ""),
        same_machine=_same_machine(one.get("connection", "")),
        libc=libc.lower(),
        libc_version=_version(libc_version),
        pythons=tuple(_pythons(pairs)),
        memory_bytes=_number(one.get("memory_kb", "")) << 10,
        systemd=_number(one.get("systemd", "")),
        tools=frozenset(value for key, value in pairs if key == "tool"),
        groups=tuple(value for key, value in pairs if key == "group"),
        places=MappingProxyType(_places(pairs)),
    )


def _pythons(pairs: list[tuple[str, str]]) -> list[Python]:
    found: dict[str, Python] = {}
    for key, value in pairs:
        words = value.rsplit(" ", 3)
        if key == "python" and len(words) == 4 and words[0].startswith("/"):
            python = Python(words[0], _version(words[1]), _number(words[2]), words[3] == "1")
            found.setdefault(python.path, python)
    return list(found.values())


def _places(pairs: list[tuple[str, str]]) -> dict[str, Place]:
    places: dict[str, dict[str, str]] = {}
    table: dict[str, str] = {}
    for key, value in pairs:
        if key == "place":
            table = places.setdefault(value, {})
        elif key in ("free_kb", "release", "digest", "device"):
            table[key] = value
    return {
        path: Place(
            free_bytes=_number(values.get("free_kb", "")) << 10,
            release=_number(values.get("release", "")),
            digest=values.get("digest", ""),
            device=values.get("device", ""),
        )
        for path, values in places.items()
    }


def _same_machine(connection: str) -> bool:
    """Read SSH_CONNECTION: client address, client port, server address, server port."""
    words = connection.split()
    return len(words) == 4 and words[0] == words[2]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _version(text: str) -> tuple[int, int]:
    parts = [*text.split("."), "", ""]
    return _number(parts[0]), _number(parts[1])
