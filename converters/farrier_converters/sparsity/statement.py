"""What zeros buy on a target: the engine skips them, or they only make files smaller. A table with its evidence.

Three answers: "faster" needs kernels that skip zeros, under the conditions that are said; "perhaps" is what a vendor
documents and nobody measured here; "smaller" is all that dense kernels leave.
"""

from __future__ import annotations

from dataclasses import dataclass

from farrier_contracts.targets import Target, Toolchain

from .patterns import NofM, Pattern

FASTER, PERHAPS, SMALLER = "faster", "perhaps", "smaller"
AMPERE = 80  # compute capability of the first GPUs with sparse tensor cores


@dataclass(frozen=True)
class Effect:
    """What sparse weights do in one engine: `verdict`, on which `condition` it hangs, and the `evidence`."""

    verdict: str
    condition: str
    evidence: str

    def __str__(self) -> str:
        return {
            FASTER: f"faster, where {self.condition}; smaller in any case",
            PERHAPS: f"perhaps faster: {self.condition}; smaller in any case",
            SMALLER: f"only smaller, not faster: {self.condition}",
        }[self.verdict]


_ORT = Effect(
    SMALLER,
    "its kernels are dense, and sparse initializers are made dense when the file is opened",
    "ONNX Runtime pull request 5540; timed here (docs/sparsity.md)",
)
_XNNPACK_X86 = Effect(
    SMALLER,
    "XNNPACK's sparse kernels are switched off on x86 processors with AVX, where its dense ones are faster",
    "XNNPACK src/xnnpack/hardware-config.h, xnn_is_chw_compatible_config; timed here (docs/sparsity.md)",
)
_XNNPACK_ARM = Effect(
    PERHAPS,
    "XNNPACK skips zeros of 1x1 convolutions in float networks of the MobileNet form (a 3x3 convolution of stride 2 "
    "on three channels first, a global mean last) that are more than two thirds zero, from a file with sparse "
    "tensors, which the pass pack-zeros asks for",
    "TensorFlow Lite, XNNPACK delegate, README, section Sparse Inference; Elsen et al., arXiv 1911.09723",
)
_TENSORRT = Effect(
    PERHAPS,
    "the builder times sparse kernels for layers with the pattern 2:4 and takes them where they win",
    'NVIDIA, "TensorRT Developer Guide", Structured Sparsity; Mishra et al., arXiv 2104.08378',
)
_TENSORRT_OTHER = Effect(
    SMALLER,
    "sparse tensor cores read the pattern 2:4 and no other",
    'NVIDIA, "TensorRT Developer Guide", Structured Sparsity',
)
_TENSORRT_OLD = Effect(
    SMALLER,
    "the GPU is older than Ampere and has no sparse tensor cores",
    'NVIDIA, "TensorRT Developer Guide", Structured Sparsity',
)
_OPENVINO = Effect(
    PERHAPS,
    "on Xeons with AMX (4th generation and later), quantized matrix products of more zeros than the property "
    "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE says read packed weights; elsewhere kernels are dense",
    "OpenVINO documentation, CPU device: Sparse weights decompression",
)
_COREML = Effect(
    PERHAPS,
    "the Neural Engine loads fewer bytes, and skips runs of zeros, of weights that coremltools has stored as sparse",
    "coremltools documentation, Pruning, Performance",
)
_ETHOS = Effect(
    PERHAPS,
    "Vela packs weights, zeros to almost nothing, so that layers that wait for their weights get faster",
    'Arm, "Benefit of pruning and clustering a neural network for before deploying on Arm Ethos-U NPU"',
)
_DENSE = "its kernels are dense"
ENGINES: dict[str, Effect] = {
    "onnxruntime": _ORT,
    "openvino": _OPENVINO,
    "coreml": _COREML,
    "ethos-u": _ETHOS,
    "edgetpu": Effect(SMALLER, _DENSE, "Coral documentation names no use of zeros"),
    "executorch": Effect(SMALLER, "its XNNPACK backend gets dense weights", "ExecuTorch's XNNPACK backend"),
    "iree": Effect(
        SMALLER, "the compiler treats weights as dense", "IREE documentation names no use of zeros"
    ),
    "tvm": Effect(SMALLER, "the compiler treats weights as dense", "weights are compiled as dense constants"),
    "mnn": Effect(
        SMALLER, "the converter is not asked for sparse blocks", "farrier runs MNN's dense kernels"
    ),
}
_UNKNOWN = Effect(SMALLER, "nothing is known of kernels that skip zeros", "no document was found")


def effect(target: Target, toolchain: Toolchain, pattern: Pattern) -> Effect:
    """Return what weights with a pattern do on a target through one of its toolchains."""
    if toolchain.engine == "tensorrt":
        if int(toolchain.parameters.get("sm", 0)) < AMPERE:
            return _TENSORRT_OLD
        return _TENSORRT if isinstance(pattern, NofM) and _fits_tensor_cores(pattern) else _TENSORRT_OTHER
    if toolchain.engine == "litert":
        if target.arch == "x86_64":
            return _XNNPACK_X86
        if isinstance(pattern, NofM) and pattern.ratio <= 2 / 3:
            return Effect(
                SMALLER,
                f"XNNPACK's sparse kernels want more than two thirds of zeros, and {pattern} has {pattern.ratio:.0%}",
                _XNNPACK_ARM.evidence,
            )
        return _XNNPACK_ARM
    return ENGINES.get(toolchain.engine, _UNKNOWN)


def statement(target: Target, pattern: Pattern) -> str:
    """Return one line per toolchain of a target: what to expect of a model with this pattern there."""
    return "\n".join(f"{t.engine}: {effect(target, t, pattern)}" for t in target.toolchains)


def _fits_tensor_cores(pattern: NofM) -> bool:
    """Say whether weights with the pattern have two zeros in every four neighbours, as 2:4 and 1:4 do."""
    return pattern.among == 4 and pattern.kept <= 2
