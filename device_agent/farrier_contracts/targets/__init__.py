"""The targets Farrier knows. A new one is one constant in its family's file and one line here."""

from __future__ import annotations

import platform
from pathlib import Path

from ..errors import UsageError
from .arithmetics import ARITHMETICS
from .arm import ARM64, GRAVITON, RASPBERRY_PI_4, RASPBERRY_PI_5
from .coral import CORAL_DEV_BOARD, CORAL_USB
from .datacentre import CUDA_GPU, GAUDI, INFERENTIA, TPU
from .jetson import JETSON_NANO, JETSON_ORIN, JETSON_XAVIER
from .micro import CORTEX_M_ETHOS_U
from .mobile import ANDROID, IOS
from .model import (
    EXACT,
    FIXED_POINT,
    HALF_EVEN,
    INPUTS,
    INTEGERS,
    LITERT,
    PAIRS,
    RESULTS,
    Arithmetic,
    Target,
    Toolchain,
)
from .null import NULL
from .x86 import AVX2, VNNI

__all__ = [
    "ARITHMETICS",
    "EXACT",
    "FIXED_POINT",
    "HALF_EVEN",
    "INPUTS",
    "INTEGERS",
    "LITERT",
    "PAIRS",
    "RESULTS",
    "TARGETS",
    "Arithmetic",
    "Target",
    "Toolchain",
    "get",
    "host",
]

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        AVX2,
        VNNI,
        ARM64,
        RASPBERRY_PI_4,
        RASPBERRY_PI_5,
        GRAVITON,
        JETSON_NANO,
        JETSON_XAVIER,
        JETSON_ORIN,
        CORAL_USB,
        CORAL_DEV_BOARD,
        ANDROID,
        IOS,
        CORTEX_M_ETHOS_U,
        CUDA_GPU,
        TPU,
        INFERENTIA,
        GAUDI,
        NULL,
    )
}


def get(name: str) -> Target:
    """Return the target called `name`; "host" is whatever this machine is. Raises UsageError."""
    if name == "host":
        return host()
    try:
        return TARGETS[name]
    except KeyError:
        known = ", ".join(["host", *TARGETS])
        raise UsageError(f"unknown target {name!r}; choose one of: {known}") from None


def host(machine: str | None = None, cpuinfo: str | None = None) -> Target:
    """Return the generic target that describes this machine, from its kernel's list of processor features."""
    machine = machine or platform.machine()
    if machine in ("aarch64", "arm64"):
        return ARM64
    features = _cpu_features(cpuinfo)
    return VNNI if features & {"avx512_vnni", "avx_vnni"} else AVX2


def _cpu_features(cpuinfo: str | None) -> set[str]:
    if cpuinfo is None:
        try:
            cpuinfo = Path("/proc/cpuinfo").read_text()
        except OSError:
            return set()
    lines = (line for line in cpuinfo.splitlines() if line.startswith("flags"))
    return set(next(lines, "").partition(":")[2].split())
