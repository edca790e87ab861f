"""x86-64 processors, told apart by how they multiply 8-bit integers."""

from __future__ import annotations

from .arithmetics import X86_AVX2, X86_VNNI
from .model import Target
from .processors import MLAS, XNNPACK, litert, onnxruntime, openvino

_QUANTIZE = 'ONNX Runtime documentation, "Quantize ONNX Models": U8S8, reduce_range'
_OPENVINO_DOCS = "OpenVINO documentation, CPU device: u8 and i8 where the model carries quantization"
_SOURCES = {"cpu_features": MLAS, "arithmetic": _QUANTIZE, "toolchains": f"{XNNPACK}; {_OPENVINO_DOCS}"}
_EMULATED = (
    "float runs on any x86-64; integers of processors without VNNI are emulated where the machine has it"
)
_OPENVINO = "run on a processor with AVX512-VNNI, where OpenVINO is installed"
_RUN = "run and timed in every test on a processor with AVX512-VNNI"

AVX2 = Target(
    name="x86-avx2",
    description="x86-64 with AVX2 or AVX-512 but without VNNI: u8 x s8 products saturate in 16 bits",
    arch="x86_64",
    cpu_features=("avx2",),
    toolchains=(onnxruntime(X86_AVX2, _EMULATED), litert(_EMULATED), openvino(X86_AVX2, _OPENVINO)),
    sources=_SOURCES,
)

VNNI = Target(
    name="x86-vnni",
    description="x86-64 with AVX-VNNI or AVX512-VNNI: u8 x s8 products are summed in 32 bits",
    arch="x86_64",
    cpu_features=("avx2", "vnni"),
    toolchains=(onnxruntime(X86_VNNI, _RUN), litert(_RUN), openvino(X86_VNNI, _OPENVINO)),
    sources=_SOURCES,
)
