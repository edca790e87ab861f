"""How a device will be flashed, decided from its facts alone; where it cannot work, one sentence says why."""

from __future__ import annotations

import re
from dataclasses import dataclass

from farrier_contracts.errors import FarrierError, UsageError
from farrier_contracts.wire import topics

from .facts import Facts, Place, Python

PYTHON_MIN = (3, 9)
GLIBC_MIN = (2, 17)  # the oldest that today's wheels are built for (manylinux2014)
MEMORY_MIN_BYTES = 96 << 20  # supervisor, worker and a small model
FREE_MIN_BYTES = (
    64 << 20
)  # a floor before anything is resolved; the exact need is checked with the wheels known
SYSTEMD_MIN = 235  # DynamicUser and StateDirectory

ENGINES = ("onnx", "litert", "tflite-legacy")
SERVICES = ("auto", "systemd", "plain")
# (machine as the kernel names it, pointer bits of its Python) -> architecture as wheels name it
_ARCHES = {
    ("x86_64", 64): "x86_64",
    ("aarch64", 64): "aarch64",
    ("arm64", 64): "aarch64",
    ("aarch64", 32): "armv7l",  # a 32-bit system on a 64-bit kernel, as Raspberry Pi OS ships it
    ("armv8l", 32): "armv7l",
    ("armv7l", 32): "armv7l",
}
# engines whose packages were never built for an architecture
_UNBUILT = {("onnx", "armv7l"): "onnxruntime", ("litert", "armv7l"): "ai-edge-litert"}
_PREFIX = re.compile(r"/[A-Za-z0-9._/+-]*[A-Za-z0-9._+-]")


@dataclass(frozen=True)
class Options:
    """What the user asked for; empty means: decide."""

    device: str = ""
    prefix: str = ""
    engines: tuple[str, ...] = ()
    service: str = "auto"
    at_boot: bool = True


@dataclass(frozen=True)
class Platform:
    """What wheels are chosen by: architecture, glibc and Python versions of a device."""

    arch: str
    glibc: tuple[int, int]
    python: tuple[int, int]

    def __str__(self) -> str:
        """Return, for instance, `aarch64, glibc 2.36, Python 3.11`."""
        return f"{self.arch}, glibc {_dotted(self.glibc)}, Python {_dotted(self.python)}"


@dataclass(frozen=True)
class Plan:
    """What will be done. `elevate`: through sudo; `place`: what is at the prefix now."""

    device: str
    platform: Platform
    python: str
    engines: tuple[str, ...]
    prefix: str
    state_dir: str
    place: Place
    service: str
    at_boot: bool
    elevate: bool
    systemd: int
    groups: tuple[str, ...]


def plan(facts: Facts, options: Options) -> Plan:
    """Return the plan for a device; raises FarrierError where it cannot work, UsageError for a wrong option."""
    check(options)
    if facts.kernel != "Linux":
        raise FarrierError(f"the device runs {facts.kernel or 'an unknown system'}; the agent needs Linux")
    python = _python(facts)
    platform = _platform(facts, python)
    service = _service(facts, options)
    elevate = service == "systemd" and not facts.root
    prefix = options.prefix or _default_prefix(facts, elevate=elevate)
    place = facts.places.get(prefix, Place(free_bytes=0))
    _check_room(facts, place, prefix)
    engines = options.engines or (("tflite-legacy",) if platform.arch == "armv7l" else ("onnx",))
    _check_engines(engines, platform)
    return Plan(
        device=options.device or place.device or device_id(facts.hostname),
        platform=platform,
        python=python.path,
        engines=engines,
        prefix=prefix,
        state_dir="/var/lib/farrier" if service == "systemd" else f"{prefix}/state",
        place=place,
        service=service,
        at_boot=options.at_boot and (service == "systemd" or "crontab" in facts.tools),
        elevate=elevate,
        systemd=facts.systemd,
        groups=facts.groups,
    )


def device_id(hostname: str) -> str:
    """Return a device id made from a host name; raises FarrierError where nothing legal is left of it."""
    name = re.sub(r"[^a-z0-9]+", "-", hostname.lower().partition(".")[0]).strip("-")[:64].strip("-")
    if not name:
        raise FarrierError(
            f"the device's host name {hostname!r:.80} makes no device id; give one with --device"
        )
    return name


def check(options: Options) -> None:
    """Raise UsageError or InputError for an option that can be told wrong without a device."""
    if options.device:
        topics.checked_id(options.device, "a device's id")
    for engine in options.engines:
        if engine not in ENGINES:
            raise UsageError(f"{engine!r:.80} is no engine; known are {', '.join(ENGINES)}")
    if options.service not in SERVICES:
        raise UsageError(f"{options.service!r:.80} is no kind of service; known are {', '.join(SERVICES)}")
    if options.prefix and (not _PREFIX.fullmatch(options.prefix) or ".." in options.prefix.split("/")):
        raise UsageError(
            f"the prefix {options.prefix!r:.200} must be an absolute path of letters, digits and . _ + - on the device"
        )


def _python(facts: Facts) -> Python:
    """Return the distribution's own python3 where it will do, else the newest that does."""
    new_enough = [python for python in facts.pythons if python.version >= PYTHON_MIN]
    if not new_enough:
        found = ", ".join(f"Python {_dotted(python.version)}" for python in facts.pythons) or "no Python"
        raise FarrierError(f"the device has {found}; install Python {_dotted(PYTHON_MIN)} or newer on it")
    complete = [python for python in new_enough if python.complete]
    if not complete:
        raise FarrierError(
            f"Python {_dotted(new_enough[0].version)} on the device lacks venv, ssl or ctypes; "
            "install its whole standard library (on Debian: apt install python3-venv)"
        )
    first = facts.pythons[0]
    return first if first in complete else max(complete, key=lambda python: python.version)


def _platform(facts: Facts, python: Python) -> Platform:
    arch = _ARCHES.get((facts.arch, python.bits))
    if arch is None:
        machine = facts.arch or "of an unknown kind"
        raise FarrierError(
            f"the device is {machine} with {python.bits}-bit Python; "
            f"wheels exist for {', '.join(sorted(set(_ARCHES.values())))}"
        )
    if facts.libc != "glibc":
        libc = facts.libc or "an unknown C library"
        raise FarrierError(
            f"the device uses {libc}; the engines have wheels for glibc only, choose a glibc system"
        )
    if facts.libc_version < GLIBC_MIN:
        raise FarrierError(
            f"the device has glibc {_dotted(facts.libc_version)}; {_dotted(GLIBC_MIN)} or newer is needed"
        )
    return Platform(arch, facts.libc_version, python.version)


def _check_engines(engines: tuple[str, ...], platform: Platform) -> None:
    for engine in engines:
        package = _UNBUILT.get((engine, platform.arch))
        if package:
            raise FarrierError(f"{package} has no wheels for {platform.arch}; use --engine tflite-legacy")


def _service(facts: Facts, options: Options) -> str:
    able = facts.systemd >= SYSTEMD_MIN and (facts.root or facts.sudo)
    if options.service == "systemd" and not able:
        raise FarrierError(
            f"a systemd service needs systemd {SYSTEMD_MIN} or newer running on the device, and root or "
            "passwordless sudo; use --service plain"
        )
    if options.service == "auto":
        return "systemd" if able else "plain"
    return options.service


def _default_prefix(facts: Facts, *, elevate: bool) -> str:
    if facts.root or elevate:
        return "/opt/farrier"
    if not _PREFIX.fullmatch(facts.home):
        raise FarrierError(
            "the device's user has no home folder to install into; give a folder with --prefix"
        )
    return f"{facts.home.rstrip('/')}/.local/share/farrier"


def _check_room(facts: Facts, place: Place, prefix: str) -> None:
    if "tar" not in facts.tools:
        raise FarrierError("the device has no tar; install it")
    if facts.memory_bytes < MEMORY_MIN_BYTES:
        raise FarrierError(
            f"the device has {facts.memory_bytes >> 20} MiB of memory; "
            f"the agent and an engine need {MEMORY_MIN_BYTES >> 20} MiB"
        )
    if place.free_bytes < FREE_MIN_BYTES:
        raise FarrierError(
            f"{prefix} on the device has {place.free_bytes >> 20} MiB free and needs at least "
            f"{FREE_MIN_BYTES >> 20} MiB; free some space or choose another folder with --prefix"
        )


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
