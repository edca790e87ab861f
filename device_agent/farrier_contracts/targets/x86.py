"""x86-64 processors, told apart by how they multiply 8-bit integers."""

from __future__ import annotations

from .arithmetics import X86_AVX2, X86_VNNI
from .model import Arithmetic, Target, Toolchain
from .processors import MLAS, XNNPACK, executorch, iree, litert, onnxruntime, openvino

_QUANTIZE = 'ONNX Runtime documentation, "Quantize ONNX Models": U8S8, reduce_range'
_OPENVINO_DOCS = "OpenVINO documentation, CPU device: u8 and i8 where the model carries quantization"
_IREE_DOCS = "IREE documentation, CPU deployment: local device, LLVM's words for triple and processor"
_SOURCES = {
    "cpu_features": MLAS,
    "arithmetic": _QUANTIZE,
    "toolchains": f"{XNNPACK}; {_OPENVINO_DOCS}",
    "device": _IREE_DOCS,
    "triple": _IREE_DOCS,
    "cpu": _IREE_DOCS,
}
_EMULATED = (
    "float runs on any x86-64; integers of processors without VNNI are emulated where the machine has it"
)
_INSTALLED = "run on a processor with AVX512-VNNI, where it is installed"
_RUN = "run and timed in every test on a processor with AVX512-VNNI"


def _toolchains(arithmetic: Arithmetic, cpu: str, proven: str) -> tuple[Toolchain, ...]:
    return (
        onnxruntime(arithmetic, proven),
        litert(proven),
        openvino(arithmetic, _INSTALLED),
        executorch(_INSTALLED),
        iree(_INSTALLED, device="cpu", triple="x86_64-unknown-linux-gnu", cpu=cpu),
    )


AVX2 = Target(
    name="x86-avx2",
    description="x86-64 with AVX2 or AVX-512 but without VNNI: u8 x s8 products saturate in 16 bits",
    arch="x86_64",
    cpu_features=("avx2",),
    toolchains=_toolchains(X86_AVX2, "haswell", _EMULATED),
    sources=_SOURCES,
)

VNNI = Target(
    name="x86-vnni",
    description="x86-64 with AVX-VNNI or AVX512-VNNI: u8 x s8 products are summed in 32 bits",
    arch="x86_64",
    cpu_features=("avx2", "vnni"),
    toolchains=_toolchains(X86_VNNI, "cascadelake", _RUN),
    sources=_SOURCES,
)
