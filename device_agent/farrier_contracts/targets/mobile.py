"""Phones: what is delivered there is a file that an app loads; no agent runs on them."""

from __future__ import annotations

from .arithmetics import ARM
from .model import Target, Toolchain
from .processors import EMULATED, MLAS, XNNPACK, executorch, litert, onnxruntime

_EXECUTORCH = "pytorch/executorch docs: backends-xnnpack, xnnpack-quantization.md"
_EXPORTED = "run on x86-64 in ExecuTorch's own runtime; not on a phone"
_COREML = 'coremltools documentation, "What\'s New": precisions by iOS version'
_COREML_EP = 'ONNX Runtime documentation, "CoreML Execution Provider"'

ANDROID = Target(
    name="android",
    description="Android phones with a 64-bit ARM processor: LiteRT, ONNX Runtime or ExecuTorch inside an app",
    arch="aarch64",
    toolchains=(litert(EMULATED), onnxruntime(ARM, EMULATED), executorch(_EXPORTED, flasher="null")),
    sources={"arithmetic": MLAS, "toolchains": f"{XNNPACK}; {_EXECUTORCH}"},
)

IOS = Target(
    name="ios",
    description="iPhones from iOS 17 on: Core ML, or LiteRT and ONNX Runtime on the processor",
    arch="aarch64",
    toolchains=(
        Toolchain(
            compiler="coreml",
            format="mlpackage.zip",
            engine="coreml",
            precisions=("fp16",),
            flasher="null",
            rules="coreml",
            stand_in="onnxruntime",
            proven="only compiled: Core ML runs on Apple's systems alone",
        ),
        litert(EMULATED),
        onnxruntime(ARM, EMULATED),
    ),
    accelerators=("coreml",),
    sources={"arithmetic": MLAS, "accelerators": f"{_COREML}; {_COREML_EP}", "toolchains": XNNPACK},
)
