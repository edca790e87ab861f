"""The integer arithmetics that engines have, by name: what a target points to and the host emulates."""

from __future__ import annotations

from .model import FIXED_POINT, INPUTS, INTEGERS, LITERT, PAIRS, Arithmetic

_PLATFORM = "microsoft/onnxruntime core/mlas/lib/platform.cpp: kernels chosen at load"
_QUANTIZE = 'ONNX Runtime documentation, "Quantize ONNX Models": U8S8, reduce_range'
_XNNPACK = "google-ai-edge/LiteRT tflite/delegates/xnnpack/README.md: operators with 8-bit kernels"
_SPEC = "tensorflow/tensorflow lite/g3doc/performance/quantization_spec.md"

X86_VNNI = Arithmetic(
    "u8",
    name="x86-vnni",
    description="ONNX Runtime on x86-64 with VNNI",
    sources=(_PLATFORM, "Intel SDM, VPDPBUSD: four products summed in 32 bits"),
)
X86_AVX2 = Arithmetic(
    "u8",
    weight_bits=7,
    accumulator=PAIRS,
    name="x86-avx2",
    description="ONNX Runtime on x86-64 without VNNI",
    sources=(_PLATFORM, _QUANTIZE, "Intel SDM, VPMADDUBSW: two products summed in 16 bits, saturating"),
)
ARM = Arithmetic(
    "s8",
    name="arm",
    description="ONNX Runtime on ARM",
    sources=(_PLATFORM, "Arm ARM, SMULL and SADALP, SDOT: two or four products summed in 32 bits"),
)
XNNPACK = Arithmetic(
    "s8",
    quantizers=LITERT,
    name="xnnpack",
    description="LiteRT with XNNPACK, on any processor",
    sources=(_XNNPACK, _SPEC),
)
TFLITE_REFERENCE = Arithmetic(
    "s8",
    rounding=FIXED_POINT,
    name="tflite-reference",
    description="TFLite's own kernels, TFLite Micro",
    sources=(_SPEC, "B. Jacob et al., arXiv:1712.05877, section 2.2; gemmlowp doc/quantization.md"),
)
INTEGER_NPU = Arithmetic(
    "s8",
    rounding=FIXED_POINT,
    quantizers=INTEGERS,
    name="integer-npu",
    description="Edge TPU and Ethos-U, which compute in integers alone",
    sources=(_SPEC, 'Coral documentation, "TensorFlow models on the Edge TPU"'),
)
NPU_PER_TENSOR = Arithmetic(
    "s8",
    per_channel=False,
    symmetric_activations=True,
    rounding=FIXED_POINT,
    name="npu-per-tensor",
    description="accelerators with one symmetric scale per tensor",
    sources=("NVIDIA TensorRT, Working with DLA: symmetric per-tensor INT8 only", _SPEC),
)
TENSORRT = Arithmetic(
    "s8",
    symmetric_activations=True,
    quantizers=INPUTS,
    name="tensorrt",
    description="TensorRT on NVIDIA GPUs",
    sources=(
        "NVIDIA TensorRT, Quantization Schemes: symmetric INT8 in [-128, 127], rounded half to even",
        "NVIDIA TensorRT, Explicit Quantization: placement of Q/DQ, weights per output channel",
    ),
)


ARITHMETICS: dict[str, Arithmetic] = {
    arithmetic.name: arithmetic
    for arithmetic in (
        X86_VNNI,
        X86_AVX2,
        ARM,
        XNNPACK,
        TFLITE_REFERENCE,
        INTEGER_NPU,
        NPU_PER_TENSOR,
        TENSORRT,
    )
}
