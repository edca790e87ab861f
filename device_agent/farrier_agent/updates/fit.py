"""Whether a bundle fits this device, told from package metadata alone: no engine is imported."""

from __future__ import annotations

import os
import platform

from farrier_contracts.bundle import Manifest
from farrier_contracts.errors import BundleError

from ..compatibility import Device, judge
from ..engines.system_packages import TENSORRT, version

# engine -> the distributions that may bring it, any one of them; () where nothing need be installed
DISTRIBUTIONS = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "edgetpu": ("ai-edge-litert", "tflite-runtime"),  # its own library is no package of Python's
    "executorch": ("executorch",),
    "iree": ("iree-base-runtime",),
    "openvino": ("openvino",),
    "tensorrt": TENSORRT,
    "null": (),
}
_ARCH_NAMES = {"arm64": "aarch64", "amd64": "x86_64"}


def check(manifest: Manifest) -> None:
    """Raise BundleError, in one sentence, where this device may not or cannot run the bundle."""
    device = this_device()
    judge(manifest, device)
    wanted = [artifact.engine for artifact in manifest.artifacts]
    if not set(wanted) & set(device.engines):
        raise BundleError(
            f"{manifest.name} {manifest.version} needs {' or '.join(dict.fromkeys(wanted))}, which this device "
            "does not have: install the engine or deploy another bundle"
        )


def this_device() -> Device:
    """Return this device's processor, memory and the engines that are installed."""
    machine = platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = {engine: _version(engine) for engine in DISTRIBUTIONS}
    installed = {engine: version for engine, version in versions.items() if version is not None}
    return Device(_ARCH_NAMES.get(machine.lower(), machine), memory, installed)


def _version(engine: str) -> str | None:
    return version(DISTRIBUTIONS[engine]) if DISTRIBUTIONS[engine] else "0"
