"""Which wheels fit a device, and which of its requirements they meet: rules alone, nothing downloaded.

Platform tags: PEP 600 (manylinux_x_y, perennial) and its older names of PEP 513, 571 and 599. Markers: PEP 508,
evaluated for the device: pip itself evaluates them for the machine that it runs on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ..plan import GLIBC_MIN, Platform

_OLDEST_MINOR = {"x86_64": 5}  # elsewhere manylinux began with glibc 2.17
_OLDER_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}


@dataclass(frozen=True)
class Wheel:
    """What the metadata of one wheel says. `bytes` is its size, `unpacked_bytes` that of what it holds."""

    name: str
    version: str
    file: str
    requires: tuple[str, ...]
    sha256: str
    bytes: int
    unpacked_bytes: int


def platform_tags(platform: Platform) -> list[str]:
    """Return every tag that the device's glibc satisfies, newest first: pip does not expand them by itself."""
    major, newest = platform.glibc
    oldest = _OLDEST_MINOR.get(platform.arch, GLIBC_MIN[1])
    tags = []
    for minor in range(newest, oldest - 1, -1):
        tags.append(f"manylinux_{major}_{minor}_{platform.arch}")
        if minor in _OLDER_NAMES:
            tags.append(f"{_OLDER_NAMES[minor]}_{platform.arch}")
    return [*tags, f"linux_{platform.arch}"]  # the last as local and community indexes of boards use it


def needed(
    wheels: Iterable[Wheel], roots: Iterable[str], platform: Platform
) -> tuple[list[Wheel], list[str]]:
    """Return the wheels that the device needs for `roots`, and requirements that none of the wheels meets."""
    available = {canonicalize_name(wheel.name): wheel for wheel in wheels}
    environment = marker_environment(platform)
    chosen: dict[str, Wheel] = {}
    missing: dict[str, None] = {}
    seen: set[tuple[str, str]] = set()
    pending = [Requirement(root) for root in roots]
    while pending:
        requirement = pending.pop(0)
        wheel = available.get(canonicalize_name(requirement.name))
        if wheel is None:
            requirement.marker = None
            missing[str(requirement)] = None
            continue
        chosen[wheel.name] = wheel
        for extra in ("", *sorted(requirement.extras)):
            if (wheel.name, extra) not in seen:
                seen.add((wheel.name, extra))
                pending += _requires(wheel, {**environment, "extra": extra})
    return sorted(chosen.values(), key=lambda wheel: wheel.name), list(missing)


def _requires(wheel: Wheel, environment: Mapping[str, str]) -> list[Requirement]:
    requirements = [Requirement(text) for text in wheel.requires]
    return [r for r in requirements if r.marker is None or r.marker.evaluate(dict(environment))]


def marker_environment(platform: Platform) -> dict[str, str]:
    """Return the marker variables of PEP 508 as they are on the device."""
    version = f"{platform.python[0]}.{platform.python[1]}"
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "posix",
        "platform_machine": platform.arch,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": "linux",
    }
