"""Core ML: which ONNX nodes an ML Program has a counterpart for.

Source: microsoft/onnxruntime tools/ci_build/github/apple/coreml_supported_mlprogram_ops.md (2025). It is the list of
one converter, not of Core ML: what is not on it is a "maybe". On which of CPU, GPU and Neural Engine an operator then
runs, Core ML decides by itself and says nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ...tflite.file import TfliteFile
from ..limits import Limit, OnnxTable
from ..placement import OnnxGraph, Parameters, Placement
from ..site import OnnxSite

UNIT = "coreml"
SOURCE = "ONNX Runtime, coreml_supported_mlprogram_ops.md (2025)"
UNTOLD = "which of CPU, GPU and Neural Engine runs an operator, Core ML decides by itself and says nowhere"
HALVES = "Core ML computes in float16: predicted for the float graph"


def _beyond(rank: int) -> Limit[OnnxSite]:
    return Limit(lambda site: (site.rank() or 0) > rank, f"its input has more than {rank} dimensions", SOURCE)


def _constant(*positions: int) -> Limit[OnnxSite]:
    def computed(site: OnnxSite) -> object:
        return next((site.name(position) for position in positions if not site.constant(position)), "")

    return Limit(computed, "its input {} is computed, and has to be a constant", SOURCE, confirmed=False)


def _odd_deconvolution(site: OnnxSite) -> object:
    padding = site.attribute("auto_pad", "NOTSET")
    if padding in ("SAME_UPPER", "SAME_LOWER"):
        return f"auto_pad {padding}"
    return next((name for name in ("output_shape", "output_padding") if site.attribute(name) is not None), "")


def _double(site: OnnxSite) -> object:
    return site.output.dtype == onnx.TensorProto.DOUBLE


_POOL = (_beyond(4),)
OPERATORS: dict[str, Sequence[Limit[OnnxSite]]] = {
    **{
        name: ()
        for name in (
            "Add",
            "ArgMax",
            "Cast",
            "Clip",
            "Concat",
            "DepthToSpace",
            "Div",
            "Elu",
            "Erf",
            "Exp",
            "Flatten",
            "Gelu",
            "GroupNormalization",
            "Identity",
            "InstanceNormalization",
            "LayerNormalization",
            "LeakyRelu",
            "MatMul",
            "Max",
            "Mul",
            "PRelu",
            "Pow",
            "Reciprocal",
            "ReduceMax",
            "ReduceMean",
            "ReduceSum",
            "Relu",
            "Reshape",
            "Resize",
            "Round",
            "Shape",
            "Sigmoid",
            "Softmax",
            "Softplus",
            "Sqrt",
            "Squeeze",
            "Sub",
            "Tanh",
            "Transpose",
            "Unsqueeze",
        )
    },
    **{
        name: _POOL for name in ("AveragePool", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "GridSample")
    },
    "BatchNormalization": (_constant(1, 2, 3, 4),),
    "Conv": (_beyond(4), _constant(2)),
    "ConvTranspose": (
        _beyond(4),
        _constant(1, 2),
        Limit(_odd_deconvolution, "it uses {}", SOURCE, "export it with explicit pads"),
    ),
    "Gemm": (_constant(1),),
    "Slice": (_constant(1, 2, 3, 4),),
    "Split": (_constant(1),),
}
EVERYWHERE = (Limit(_double, "it computes in float64", SOURCE, "export the model in float32"),)
_TABLE = OnnxTable(UNIT, "the list for Core ML", SOURCE, EVERYWHERE, OPERATORS, {}, complete=False)


class CoreMlRules:
    """Each node is seen alone."""

    unit = UNIT

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        return _TABLE.place(graph)

    def notes(
        self, subject: TfliteFile | OnnxGraph, placements: list[Placement], parameters: Parameters
    ) -> list[str]:
        """Return what Core ML does not tell."""
        return [HALVES, UNTOLD]


RULES = CoreMlRules()
