"""What engines on a plain processor have in common, whichever board it sits on."""

from __future__ import annotations

from .arithmetics import XNNPACK as XNNPACK_INTEGERS
from .model import Arithmetic, Toolchain

MLAS = "microsoft/onnxruntime core/mlas/lib/platform.cpp: kernels chosen at load"
XNNPACK = "google-ai-edge/LiteRT tflite/delegates/xnnpack/README.md: operators and limits of 8-bit kernels"
INTEGERS = (
    "int8-smooth",
    "qat",
    "w4a8",
    "w4a8-adaround",
    "w4a8-qat",
    "w4a4-qat",
)  # other ways to 8 bits or fewer
EMULATED = (
    "run under emulation of aarch64 (qemu-user), outputs compared with this machine's; never timed on a board"
)


def onnxruntime(arithmetic: Arithmetic, proven: str) -> Toolchain:
    """Return ONNX Runtime on the processor, in the integers that its kernels want there."""
    return Toolchain(
        compiler="onnx",
        format="onnx",
        engine="onnxruntime",
        precisions=("fp32", "fp16", "int8"),
        extra=(*INTEGERS, "int8-dynamic", "int8-weights", "int4", "nf4", "bf16", "fp8"),
        arithmetic=arithmetic,
        rules="onnxruntime",
        proven=proven,
    )


def openvino(arithmetic: Arithmetic, proven: str) -> Toolchain:
    """Return OpenVINO on an x86 processor: it takes ONNX with quantizers, in the integers of ONNX Runtime."""
    return Toolchain(
        compiler="openvino",
        format="onnx",
        engine="openvino",
        precisions=("fp32", "int8"),
        extra=INTEGERS,
        arithmetic=arithmetic,
        rules="null",
        proven=proven,
    )


def executorch(proven: str, flasher: str = "ssh") -> Toolchain:
    """Return ExecuTorch with XNNPACK on the processor: PyTorch's own way to devices."""
    return Toolchain(
        compiler="executorch",
        format="pte",
        engine="executorch",
        precisions=("fp32", "int8"),
        arithmetic=XNNPACK_INTEGERS,
        flasher=flasher,
        rules="null",
        proven=proven,
    )


def iree(proven: str, **parameters: str) -> Toolchain:
    """Return IREE, which compiles the whole graph for one kind of processor."""
    return Toolchain(
        compiler="iree",
        format="vmfb",
        engine="iree",
        precisions=("fp32",),
        rules="null",
        parameters=parameters,
        proven=proven,
    )


def litert(proven: str) -> Toolchain:
    """Return LiteRT with XNNPACK: signed activations and weights, on every processor alike."""
    return Toolchain(
        compiler="tflite",
        format="tflite",
        engine="litert",
        precisions=("fp32", "int8"),
        extra=("fp16", *INTEGERS),
        arithmetic=XNNPACK_INTEGERS,
        rules="xnnpack",
        proven=proven,
    )
