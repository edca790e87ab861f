"""Whether this device may run a bundle: processor, memory and engine versions. Facts apart from the rule."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from typing import Callable, Mapping, Tuple

from farrier_contracts.bundle import Manifest
from farrier_contracts.errors import BundleError, MissingToolError

_ARCH_NAMES = {"arm64": "aarch64", "amd64": "x86_64"}


@dataclass(frozen=True)
class Device:
    """What this device is. `engines` maps each installed engine to its version."""

    arch: str
    memory_bytes: int
    engines: Mapping[str, str]


def check(manifest: Manifest) -> None:
    """Raise BundleError, in one sentence, where this device may not run the bundle."""
    judge(manifest, this_device(manifest))


def judge(manifest: Manifest, device: Device) -> None:
    """Raise BundleError where the device lacks what the bundle needs."""
    need, label = manifest.compatibility, f"{manifest.name} {manifest.version}"
    if need.arch and not {"any", device.arch} & {_ARCH_NAMES.get(arch, arch) for arch in need.arch}:
        raise BundleError(
            f"{label} is for {', '.join(need.arch)}, this device is {device.arch}: deploy the bundle made for it"
        )
    if need.memory_bytes > device.memory_bytes:
        raise BundleError(
            f"{label} needs {need.memory_bytes >> 20} MiB of memory, this device has "
            f"{device.memory_bytes >> 20} MiB: deploy a smaller model"
        )
    for engine, lowest in need.engines.items():
        have = device.engines.get(engine)
        if have is not None and _numbers(have) < _numbers(lowest):
            raise BundleError(f"{label} needs {engine} {lowest} or newer, installed is {have}: update it")


def this_device(manifest: Manifest) -> Device:
    """Look at this device, as far as the manifest asks; an engine that is not installed is left out."""
    from . import engines

    installed = {}
    for name in manifest.compatibility.engines:
        version = _version(lambda name=name: engines.find(name).version())
        if version is not None:
            installed[name] = version
    machine = platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Device(_ARCH_NAMES.get(machine, machine), memory, installed)


def _version(ask: Callable[[], str]) -> str | None:
    try:
        return ask()
    except (MissingToolError, BundleError):
        return None


def _numbers(version: str) -> Tuple[int, ...]:
    """Return the leading numbers of a version: 1.20.1rc2 -> (1, 20, 1)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(n) for n in match.group().split(".")) if match else ()
