"""64-bit ARM boards that run models on their processor."""

from __future__ import annotations

from .arithmetics import ARM
from .model import Target, Toolchain

_MLAS = "microsoft/onnxruntime core/mlas/lib/platform.cpp: kernels chosen at load"
_PI = "raspberrypi/documentation: bcm2711.adoc, bcm2712.adoc"
_CPU = (Toolchain("onnx", "onnx", "onnxruntime", ("fp32", "fp16", "int8"), ARM),)

ARM64 = Target(
    name="arm64",
    description="any 64-bit ARM processor with Linux",
    arch="aarch64",
    toolchains=_CPU,
    sources=(_MLAS,),
)

RASPBERRY_PI_4 = Target(
    name="raspberry-pi-4",
    description="Raspberry Pi 4: four Cortex-A72, no dot product",
    arch="aarch64",
    toolchains=_CPU,
    memory_bytes=1 << 30,
    sources=(_MLAS, _PI),
)

RASPBERRY_PI_5 = Target(
    name="raspberry-pi-5",
    description="Raspberry Pi 5: four Cortex-A76 with dot product",
    arch="aarch64",
    toolchains=_CPU,
    memory_bytes=2 << 30,
    cpu_features=("asimddp", "asimdhp"),
    sources=(_MLAS, _PI),
)
