"""Microcontrollers with an NPU: full INT8 TFLite through Vela, run by TFLite Micro inside a firmware."""

from __future__ import annotations

from .arithmetics import INTEGER_NPU
from .model import Target, Toolchain

_VELA = "Arm Ethos-U Vela: SUPPORTED_OPS.md and vela.ini (3.10)"
_SPEC = "tensorflow/tensorflow lite/g3doc/performance/quantization_spec.md"

CORTEX_M_ETHOS_U = Target(
    name="cortex-m-ethos-u",
    description="Cortex-M with an Ethos-U55 NPU of 128 multiply-adds per cycle",
    arch="armv8-m",
    accelerators=("ethos-u",),
    toolchains=(
        Toolchain(
            compiler="vela",
            format="tflite",
            engine="ethos-u",
            precisions=("int8",),
            arithmetic=INTEGER_NPU,
            flasher="null",
            rules="ethos-u",
            parameters={"accelerator": "ethos-u55-128"},
            stand_in="litert",
            proven="compiled by Vela; the file before it runs in LiteRT's reference kernels; no board was at hand",
        ),
    ),
    sources={"accelerators": _VELA, "accelerator": _VELA, "arithmetic": _SPEC, "toolchains": _VELA},
)
