"""Boards with Google's Edge TPU: full INT8 TFLite, and whatever its compiler does not map stays on the processor."""

from __future__ import annotations

from .arithmetics import INTEGER_NPU
from .model import Target, Toolchain
from .processors import EMULATED, XNNPACK, litert

_MODELS = 'Coral documentation, "TensorFlow models on the Edge TPU"'
_COMPILER = 'Coral documentation, "Edge TPU Compiler" 16.0: minimum runtime version'
_PIPELINE = 'Coral documentation, "Pipeline a model with multiple Edge TPUs": on-chip memory'
_BOARD = "Coral Dev Board datasheet: NXP i.MX 8M, four Cortex-A53"
_SPEC = "tensorflow/tensorflow lite/g3doc/performance/quantization_spec.md"
EDGE_TPU = Toolchain(
    compiler="edgetpu",
    format="tflite",
    engine="edgetpu",
    precisions=("int8",),
    arithmetic=INTEGER_NPU,
    rules="edgetpu",
    parameters={"runtime_version": 14, "parameter_cache_bytes": 6 << 20, "parameter_limit_bytes": 8 << 20},
    stand_in="litert",
    proven="placement held against models compiled by Google's compiler; the uncompiled INT8 file runs in LiteRT; "
    "no Edge TPU was at hand",
)
_SOURCES = {
    "accelerators": _MODELS,
    "arithmetic": _SPEC,
    "toolchains": XNNPACK,
    "runtime_version": _COMPILER,
    "parameter_cache_bytes": "logs of the compiler: below 6 MiB every model fitted",
    "parameter_limit_bytes": _PIPELINE,
}

CORAL_USB = Target(
    name="coral-usb",
    description="Coral USB Accelerator: one Edge TPU on a Linux host with an ARM processor",
    arch="aarch64",
    accelerators=("edgetpu",),
    toolchains=(EDGE_TPU, litert(EMULATED)),
    sources=_SOURCES,
    unconfirmed=("parameter_cache_bytes",),
)

CORAL_DEV_BOARD = Target(
    name="coral-dev-board",
    description="Coral Dev Board: one Edge TPU, four Cortex-A53 without dot product",
    arch="aarch64",
    memory_bytes=1 << 30,
    accelerators=("edgetpu",),
    toolchains=(EDGE_TPU, litert(EMULATED)),
    sources={"memory_bytes": _BOARD, **_SOURCES},
    unconfirmed=("parameter_cache_bytes",),
)
