"""NVIDIA Jetson boards: TensorRT builds the engine on the board; ONNX Runtime on the processor is the fallback."""

from __future__ import annotations

from .arithmetics import ARM, TENSORRT
from .model import Target, Toolchain
from .processors import EMULATED, MLAS, onnxruntime

_JETPACK = "JetPack release notes: TensorRT and CUDA of each version"
_MATRIX = 'NVIDIA TensorRT 8.x, "Support Matrix": compute capability and precisions'
_DLA = 'NVIDIA TensorRT, "Working with DLA": cores, memory, restrictions'
_QDQ = "NVIDIA TensorRT 8.x developer guide, chapter 7: explicit quantization"
_MODULES = "NVIDIA Jetson module datasheets"
_PROVEN = "the QDQ graph runs in ONNX Runtime; the agent's build is tested against a stand-in that records its calls"

OPERATORS = 13  # TensorRT reads HardSwish (14) from 8.5 on, LayerNormalization (17) from 9.2 on


def _tensorrt(precisions: tuple[str, ...], **parameters: str | int) -> Toolchain:
    return Toolchain(
        compiler="tensorrt",
        format="onnx",
        engine="tensorrt",
        precisions=precisions,
        arithmetic=TENSORRT,
        rules="tensorrt",
        newest_operators=OPERATORS,
        parameters=parameters,
        stand_in="onnxruntime",
        proven=_PROVEN,
    )


_CPU = onnxruntime(ARM, EMULATED)
_SOURCES = {
    "memory_bytes": _MODULES,
    "accelerators": _MATRIX,
    "sm": _MATRIX,
    "dla_cores": _DLA,
    "tensorrt": _JETPACK,
    "arithmetic": _QDQ,
    "toolchains": MLAS,
}

JETSON_NANO = Target(
    name="jetson-nano",
    description="Jetson Nano (JetPack 4.6): Maxwell GPU with FP16 and without INT8, no DLA",
    arch="aarch64",
    memory_bytes=4 << 30,
    accelerators=("tensorrt",),
    toolchains=(_tensorrt(("fp32", "fp16"), sm=53, dla_cores=0, tensorrt="8.2.1"), _CPU),
    sources={**_SOURCES, "precisions": "torch2trt documentation: Jetson Nano has no INT8"},
)

JETSON_XAVIER = Target(
    name="jetson-xavier",
    description="Jetson Xavier AGX and NX (JetPack 5.1): Volta GPU with INT8 tensor cores, two DLA cores",
    arch="aarch64",
    memory_bytes=8 << 30,
    accelerators=("tensorrt",),
    toolchains=(_tensorrt(("fp32", "fp16", "int8"), sm=72, dla_cores=2, tensorrt="8.5.2"), _CPU),
    sources=_SOURCES,
    unconfirmed=("memory_bytes", "tensorrt"),
)

JETSON_ORIN = Target(
    name="jetson-orin",
    description="Jetson Orin AGX, NX and Nano (JetPack 6.2): Ampere GPU with INT8 and 2:4 sparsity; DLA on AGX and NX",
    arch="aarch64",
    memory_bytes=8 << 30,
    accelerators=("tensorrt",),
    toolchains=(_tensorrt(("fp32", "fp16", "int8"), sm=87, dla_cores=2, tensorrt="10.3"), _CPU),
    sources=_SOURCES,
    unconfirmed=("memory_bytes", "dla_cores"),
)
