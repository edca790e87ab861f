"""What TensorRT's ONNX importer reads, by release.

Source: onnx/onnx-tensorrt, docs/operators.md as of releases 8.4, 8.5, 9.2 and 10.15, and docs/Changelog.md for what 8.4
added to 8.2. What a later list has and an earlier one has not is doubtful in the releases between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from ...limits import Limit, OnnxTable
from ...placement import CPU
from ...site import OnnxSite
from .release import Board

UNIT = "gpu"
SOURCE = "onnx/onnx-tensorrt docs/operators.md"
# What each list has that the one before it had not.
ADDED: dict[tuple[int, int], str] = {
    (
        8,
        2,
    ): """Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu
        Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
        Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm
        GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GRU HardSigmoid Identity If ImageScaler
        InstanceNormalization IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool
        MatMul Max MaxPool Mean Min Mul Neg NonMaxSuppression Not Or Pad ParametricSoftplus Pow PRelu QuantizeLinear
        RandomUniform RandomUniformLike Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
        ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN Round ScaledTanh Scan
        Scatter ScatterElements ScatterND Selu Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign
        SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose Unsqueeze Upsample
        Where""",
    (8, 4): "Shrink Xor",
    (8, 5): """GridSample HardSwish MeanVarianceNormalization Mod NonZero OneHot RandomNormal RandomNormalLike
        Reciprocal RoiAlign Trilu""",
    (9, 2): "CastLike GroupNormalization Hardmax IsInf LayerNormalization",
    (10, 15): """Attention BlackmanWindow DeformConv Gelu HammingWindow HannWindow Mish RMSNormalization
        RotaryEmbedding STFT TensorScatter""",
}
NEWEST_OPSET = {(8, 2): 13, (8, 4): 13, (8, 5): 17, (9, 2): 19, (10, 15): 24}
CURES = {
    "GroupNormalization": "export it as InstanceNormalization, Mul and Add",
    "Gelu": "export with operator set 19 or older, where it is made of simpler operators",
    "QLinearConv": "quantize with Q/DQ pairs instead: farrier optimize with this target",
    "QLinearMatMul": "quantize with Q/DQ pairs instead: farrier optimize with this target",
    "ConvInteger": "quantize with Q/DQ pairs instead: farrier optimize with this target",
    "MatMulInteger": "quantize with Q/DQ pairs instead: farrier optimize with this target",
    "DynamicQuantizeLinear": "quantize with static ranges: farrier optimize with this target",
}
# Written in simpler operators for releases that have not got them: the compiler does it, by the standard's definitions.
DEFINED = (
    "GroupNormalization",
    "LayerNormalization",
    "Gelu",
    "HardSwish",
    "Mish",
    "MeanVarianceNormalization",
)
NO_TYPES = frozenset({onnx.TensorProto.STRING, onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128})
COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
LARGEST_K = 3840


def table(board: Board) -> OnnxTable:
    """Return the limits of the importer of a board's release."""
    return OnnxTable(
        unit=UNIT,
        title=f"the ONNX importer of {board.name}",
        source=SOURCE,
        everywhere=(
            Limit(_foreign_type, "it works on values of a type that TensorRT has not", SOURCE),
            Limit(_double, "TensorRT computes its float64 values in float32", SOURCE, refuses=False),
        ),
        operators=_operators(board),
        cures=CURES,
        elsewhere=CPU,
        complete=board.release[:2] <= max(ADDED),
    )


def newest_opset(board: Board) -> int:
    """Return the newest operator set that a document of this release, or the last before it, names."""
    return NEWEST_OPSET[max(r for r in NEWEST_OPSET if r <= max(board.release[:2], min(NEWEST_OPSET)))]


def _operators(board: Board) -> Mapping[str, Sequence[Limit[OnnxSite]]]:
    release = max(board.release[:2], min(ADDED))
    sure = [name for since, names in ADDED.items() if since <= release for name in names.split()]
    later = [since for since in ADDED if since > release]
    doubtful = ADDED[min(later)].split() if later and release not in ADDED else []
    unclear = Limit[OnnxSite](
        lambda site: True,
        f"no list of its operators was seen for {board.name}; a later one has it",
        SOURCE,
        refuses=False,
    )
    limits = _limits(release)
    found = {name: limits.get(name, ()) for name in sure} | {name: (unclear,) for name in doubtful}
    simpler = Limit[OnnxSite](
        lambda site: True, f"{board.name} gets it as simpler operators", SOURCE, refuses=False
    )
    return found | {name: (simpler,) for name in absent(board) if name not in doubtful}


def absent(board: Board) -> list[str]:
    """Return the operators that are written in simpler ones for a board's release."""
    release = max(board.release[:2], min(ADDED))
    had = {name for since, names in ADDED.items() if since <= release for name in names.split()}
    return [name for name in DEFINED if name not in had]


def _limits(release: tuple[int, ...]) -> dict[str, tuple[Limit[OnnxSite], ...]]:
    """Return what is restricted; newer lists restrict less, or say more."""
    rank = Limit(_not_flat_or_deep, "TensorRT pools over two or three axes, not over {}", SOURCE)
    dilated = Limit(_dilated, "its window is dilated", SOURCE, confirmed=release >= (10, 15))
    zero = Limit(_asymmetric, "TensorRT quantizes symmetrically: {}", SOURCE, CURES["QLinearConv"])
    reduced = Limit(_computed(1), "its axes are computed while the model runs", SOURCE)
    axes = Limit(_computed(1), "its axes are computed while the model runs", SOURCE)
    found: dict[str, tuple[Limit[OnnxSite], ...]] = {
        "AveragePool": (rank, dilated),
        "LpPool": (dilated,),
        "MaxPool": (rank, dilated, Limit(_second_output, "it returns indices", SOURCE)),
        "QuantizeLinear": (zero,),
        "DequantizeLinear": (zero,),
        "CumSum": (reduced,),
        "Squeeze": (axes,),
        "Unsqueeze": (axes,),
        "Dropout": (Limit(_training, "it drops values, as in training", SOURCE),),
        "Resize": (
            Limit(_is("mode", "cubic"), "it interpolates by cubics", SOURCE, "resize linearly"),
            Limit(_is("antialias", 1), "it smooths while it shrinks (antialias)", SOURCE),
            Limit(_other_coordinates, "its coordinates are {}", SOURCE),
        ),
        "ScatterND": (Limit(_reduces, "it reduces what meets in one place", SOURCE),),
        "TopK": (
            Limit(_is("sorted", 0), "its result is not sorted", SOURCE),
            Limit(_large_k, "it looks for {} values, and fewer than 3840 are possible", SOURCE),
        ),
        "LSTM": (
            Limit(_is("input_forget", 1), "its input and forget gates are one", SOURCE),
            Limit(_is("layout", 1), "its batch comes first (layout 1)", SOURCE, "export it with layout 0"),
        ),
        "LayerNormalization": (Limit(_second_output, "it returns mean and deviation too", SOURCE),),
    }
    found |= {f"Reduce{name}": (reduced,) for name in REDUCTIONS}
    if release < (8, 5):
        spatial = Limit(_not_flat_or_deep, "it convolves over {} axes, and two or three are possible", SOURCE)
        constant = Limit(_computed(1), "its weights are computed while the model runs", SOURCE)
        found |= {"Conv": (spatial, constant), "ConvTranspose": (spatial, constant)}
    return found


def _foreign_type(site: OnnxSite) -> object:
    kinds = {site.type(position).dtype for position in range(len(site.node.input))}
    return kinds & NO_TYPES or site.output.dtype in NO_TYPES


def _double(site: OnnxSite) -> object:
    return site.output.dtype == onnx.TensorProto.DOUBLE


def _not_flat_or_deep(site: OnnxSite) -> object:
    rank = site.rank()
    return "" if rank is None or rank in (4, 5) else str(rank - 2)


def _dilated(site: OnnxSite) -> object:
    found = site.attribute("dilations", [])
    return isinstance(found, list) and any(step != 1 for step in found)


def _second_output(site: OnnxSite) -> object:
    return len(site.node.output) > 1 and any(site.node.output[1:])


def _asymmetric(site: OnnxSite) -> object:
    if site.type(2).dtype == onnx.TensorProto.UINT8 or (
        site.node.op_type == "QuantizeLinear" and not site.name(2) and not site.attribute("output_dtype", 0)
    ):
        return "its integers are unsigned"
    zero = site.values(2) if site.name(2) else None
    return "its zero point is not 0" if zero is not None and np.any(zero) else ""


def _computed(position: int):  # noqa: ANN202 - a question about a site
    return lambda site: not site.constant(position)


def _is(name: str, value: object):  # noqa: ANN202
    return lambda site: site.attribute(name) == value


def _training(site: OnnxSite) -> object:
    flag = site.values(2) if site.name(2) else [0]
    return flag is None or any(flag)


def _other_coordinates(site: OnnxSite) -> object:
    mode = site.attribute("coordinate_transformation_mode", "half_pixel")
    return "" if mode in COORDINATES else mode


def _reduces(site: OnnxSite) -> object:
    return site.attribute("reduction", "none") != "none"


def _large_k(site: OnnxSite) -> object:
    found = site.values(1)
    return int(found[0]) if found and found[0] >= LARGEST_K else 0
