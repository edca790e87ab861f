"""64-bit ARM boards and servers that run models on their processor."""

from __future__ import annotations

from .arithmetics import ARM
from .model import Target
from .processors import EMULATED, MLAS, XNNPACK, litert, onnxruntime

_BCM2711 = "raspberrypi/documentation: bcm2711.adoc"
_BCM2712 = "raspberrypi/documentation: bcm2712.adoc"
_GRAVITON = "aws/aws-graviton-getting-started README"
_HWCAPS = "Linux: Documentation/arch/arm64/elf_hwcaps.rst"
_TOOLS = {"arithmetic": MLAS, "toolchains": XNNPACK}
_CPU = (onnxruntime(ARM, EMULATED), litert(EMULATED))

ARM64 = Target(
    name="arm64",
    description="any 64-bit ARM processor with Linux",
    arch="aarch64",
    toolchains=_CPU,
    sources=_TOOLS,
)

RASPBERRY_PI_4 = Target(
    name="raspberry-pi-4",
    description="Raspberry Pi 4: four Cortex-A72 without dot product, so that integers mostly save bandwidth",
    arch="aarch64",
    toolchains=_CPU,
    memory_bytes=1 << 30,
    sources={"memory_bytes": f"{_BCM2711} (the smallest board)", **_TOOLS},
)

RASPBERRY_PI_5 = Target(
    name="raspberry-pi-5",
    description="Raspberry Pi 5: four Cortex-A76 with dot product and half floats",
    arch="aarch64",
    toolchains=_CPU,
    memory_bytes=2 << 30,
    cpu_features=("asimddp", "asimdhp"),
    sources={
        "memory_bytes": f"{_BCM2712} (the smallest board)",
        "cpu_features": f"{_BCM2712}; {_HWCAPS}",
        **_TOOLS,
    },
)

GRAVITON = Target(
    name="graviton",
    description="AWS Graviton 2 and newer: dot product and half floats; from 3 on bfloat16 and 8-bit matrix products",
    arch="aarch64",
    toolchains=_CPU,
    cpu_features=("asimddp", "asimdhp"),
    sources={"cpu_features": f"{_GRAVITON}; {_HWCAPS}", **_TOOLS},
)
