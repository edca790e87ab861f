"""Accelerators of the data centre, as far as an artifact for them can be made on a workstation."""

from __future__ import annotations

from .arithmetics import TENSORRT
from .jetson import OPERATORS
from .model import Target, Toolchain

_ORT = 'ONNX Runtime documentation, "Quantize ONNX Models": S8S8 on GPU'
_XLA = "openxla/stablehlo: docs/compatibility.md"
_NEURON = "AWS Neuron documentation: models are traced from PyTorch on the instance"
_GAUDI = "Intel Gaudi documentation: models run through PyTorch on the card"


def _export(compiler: str, form: str, proven: str, stand_in: str = "onnxruntime") -> Toolchain:
    return Toolchain(
        compiler=compiler,
        format=form,
        engine=compiler,
        precisions=("fp32",),
        flasher="null",
        rules="null",
        stand_in=stand_in,
        proven=proven,
    )


CUDA_GPU = Target(
    name="cuda-gpu",
    description="NVIDIA GPU in a server: ONNX Runtime with CUDA, or TensorRT where it is installed",
    arch="x86_64",
    accelerators=("cuda",),
    toolchains=(
        Toolchain(
            compiler="tensorrt",
            format="onnx",
            engine="tensorrt",
            precisions=("fp32", "fp16", "int8"),
            arithmetic=TENSORRT,
            rules="tensorrt",
            newest_operators=OPERATORS,
            parameters={"sm": 80, "dla_cores": 0, "tensorrt": "10.3"},
            stand_in="onnxruntime",
            proven="the QDQ graph runs in ONNX Runtime on the processor; no GPU was at hand",
        ),
    ),
    sources={
        "arithmetic": _ORT,
        "accelerators": _ORT,
        "toolchains": _ORT,
        "sm": _ORT,
        "dla_cores": _ORT,
        "tensorrt": _ORT,
    },
    unconfirmed=("sm", "tensorrt"),
)

TPU = Target(
    name="tpu",
    description="Google Cloud TPU: StableHLO for XLA",
    arch="x86_64",
    accelerators=("tpu",),
    toolchains=(_export("stablehlo", "stablehlo", "only exported: XLA compiles it on the TPU's host"),),
    sources={"accelerators": _XLA, "toolchains": _XLA},
)

INFERENTIA = Target(
    name="inferentia",
    description="AWS Inferentia 2: a torch export for the Neuron compiler",
    arch="x86_64",
    accelerators=("neuron",),
    toolchains=(
        _export(
            "torch-export", "pt2", "exported and run in PyTorch here; Neuron compiles it on the instance"
        ),
    ),
    sources={"accelerators": _NEURON, "toolchains": _NEURON},
)

GAUDI = Target(
    name="gaudi",
    description="Intel Gaudi: a torch export for its PyTorch bridge",
    arch="x86_64",
    accelerators=("hpu",),
    toolchains=(
        _export("torch-export", "pt2", "exported and run in PyTorch here; the card's bridge compiles it"),
    ),
    sources={"accelerators": _GAUDI, "toolchains": _GAUDI},
)
