"""x86-64 processors, told apart by how they multiply 8-bit integers."""

from __future__ import annotations

from .arithmetics import X86_AVX2, X86_VNNI
from .model import Target, Toolchain

_MLAS = "microsoft/onnxruntime core/mlas/lib/platform.cpp: kernels chosen at load"
_QUANTIZE = 'ONNX Runtime documentation, "Quantize ONNX Models": U8S8, reduce_range'
_PRECISIONS = ("fp32", "fp16", "int8")

AVX2 = Target(
    name="x86-avx2",
    description="x86-64 with AVX2 or AVX-512 but without VNNI: u8 x s8 products saturate in 16 bits",
    arch="x86_64",
    cpu_features=("avx2",),
    toolchains=(Toolchain("onnx", "onnx", "onnxruntime", _PRECISIONS, X86_AVX2),),
    sources=(_MLAS, _QUANTIZE),
)

VNNI = Target(
    name="x86-vnni",
    description="x86-64 with AVX-VNNI or AVX512-VNNI: u8 x s8 products are summed in 32 bits",
    arch="x86_64",
    cpu_features=("avx2", "vnni"),
    toolchains=(Toolchain("onnx", "onnx", "onnxruntime", _PRECISIONS, X86_VNNI),),
    sources=(_MLAS, _QUANTIZE),
)
