"""LiteRT on a processor: which operators of a TFLite file XNNPACK takes, and which stay in TFLite's own kernels.

Sources: README, google-ai-edge/LiteRT tflite/delegates/xnnpack/README.md; RUN, files of one operator run in LiteRT 2.3,
which the tests do again. The README is older than RUN in places (SUM, MEAN over any axes); RUN counts then.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..limits import Limit, TfliteTable
from ..site import Site
from . import common

UNIT = "xnnpack"
MOST_AXES = 6
MOST_PARTS = 5  # of a concatenation, a split
SLOPES = (1 / 256, 128)  # of a leaky ReLU times the ratio of scales, in 8 bits
REQUANTIZED = (2**-8, 2**7)  # ratio of scales that a quantization may change
FLOAT = "float32"
README, RUN = "XNNPACK README", "run in LiteRT 2.3"


def _mixed_types(site: Site) -> object:
    kinds = {tensor.dtype for tensor in site.activations}
    allowed = kinds <= {FLOAT} or kinds <= {"int8"} or kinds <= {"uint8"}
    return "" if allowed else " and ".join(sorted(kinds))


def _in_bytes(site: Site) -> object:
    return any(tensor.dtype in common.BYTES for tensor in site.activations)


def _unsigned(site: Site) -> object:
    return any(tensor.dtype == "uint8" for tensor in site.activations)


def _too_many_parts(site: Site) -> object:
    parts = max(len(site.outputs), sum(tensor.data is None for tensor in site.inputs))
    return parts if parts > MOST_PARTS else 0


def _skipping_pool(site: Site) -> object:
    window = site.option("filter_h", 1) * site.option("filter_w", 1)
    return window == 1 and max(common.stride(site)) > 1


def _leaky(site: Site) -> object:
    before, after = site.tensor(0), site.outputs[0] if site.outputs else None
    if (
        before is None
        or after is None
        or not _in_bytes(site)
        or not before.scales.size
        or not after.scales.size
    ):
        return False
    ratio = float(before.scales[0]) / max(float(after.scales[0]), 1e-30)
    slope = abs(ratio * site.option("alpha"))
    return not (SLOPES[0] <= ratio <= SLOPES[1] and SLOPES[0] <= slope <= SLOPES[1])


def _requantizes_far(site: Site) -> object:
    before, after = site.tensor(0), site.outputs[0] if site.outputs else None
    if (
        before is None
        or after is None
        or before.dtype == FLOAT
        or not before.scales.size
        or not after.scales.size
    ):
        return False
    ratio = float(before.scales[0]) / max(float(after.scales[0]), 1e-30)
    return not REQUANTIZED[0] <= ratio <= REQUANTIZED[1]


def _hybrid(site: Site) -> object:
    weights = site.tensor(1)
    return weights is not None and weights.dtype != FLOAT and any(t.dtype == FLOAT for t in site.outputs)


def _many_axes(site: Site) -> object:
    return any(len(tensor.shape) > MOST_AXES for tensor in site.activations)


def _steps(site: Site) -> object:
    return set(site.values(3) or [1]) != {1}


def _changes_axes(site: Site) -> object:
    return any(site.option(f"{kind}_mask") for kind in ("ellipsis", "new_axis", "shrink_axis"))


def _computed(*positions: int) -> Limit[Site]:
    return Limit(common.computed(*positions), "its input {} is computed, and has to be a constant", README)


_SAME = Limit(_mixed_types, "XNNPACK does not work on {} here", README)
_FLOATS_ONLY = Limit(_in_bytes, "XNNPACK has no 8-bit kernel for it", RUN)
_WEIGHTS = _computed(1, 2)


def _floats(*more: Limit[Site]) -> Sequence[Limit[Site]]:
    return (_SAME, _FLOATS_ONLY, *more)


def _both(*more: Limit[Site]) -> Sequence[Limit[Site]]:
    return (_SAME, *more)


_POOL = Limit(_skipping_pool, "a 1x1 pool with a stride above 1 only skips", README)
_PARTS = Limit(
    _too_many_parts, f"it has {{}} parts, and XNNPACK takes at most {MOST_PARTS}", f"{README}; {RUN}"
)
_STRIDED = (
    _computed(1, 2, 3),
    Limit(_steps, "its strides are not all 1", README),
    Limit(
        _changes_axes,
        "it drops or adds an axis",
        README,
        "slice first, and reshape after",
    ),
)
OPERATORS: dict[str, Sequence[Limit[Site]]] = {
    **{
        name: _both()
        for name in (
            "ADD",
            "SUB",
            "MUL",
            "LOGISTIC",
            "TANH",
            "DEPTH_TO_SPACE",
            "SPACE_TO_DEPTH",
            "BATCH_MATMUL",
        )
    },
    **{
        name: _floats()
        for name in (
            "ABS",
            "CEIL",
            "COS",
            "DIV",
            "EXP",
            "FLOOR",
            "GELU",
            "HARD_SWISH",
            "LOG",
            "MAXIMUM",
            "MINIMUM",
            "NEG",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "ROUND",
            "RSQRT",
            "SIN",
            "SQRT",
            "SQUARE",
            "SQUARED_DIFFERENCE",
        )
    },
    **{
        name: _both(_computed(1))
        for name in ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "TRANSPOSE", "RESHAPE")
    },
    "ELU": _both(
        Limit(_unsigned, "XNNPACK has it for signed integers only", README, "use signed activations")
    ),
    "AVERAGE_POOL_2D": _floats(_POOL),
    "MAX_POOL_2D": _both(_POOL),
    "CONV_2D": _both(_WEIGHTS),
    "DEPTHWISE_CONV_2D": _both(
        _WEIGHTS, Limit(_hybrid, "its weights are integers and its activations are not", RUN, "quantize both")
    ),
    "FULLY_CONNECTED": _both(_WEIGHTS),
    "TRANSPOSE_CONV": _both(_computed(0, 1, 3)),
    "CONCATENATION": _both(_PARTS),
    "SPLIT": _both(_computed(0), _PARTS),
    "LEAKY_RELU": _both(
        Limit(_leaky, "its slope times the ratio of its scales is outside of 1/256 to 128", README)
    ),
    "PRELU": _floats(_computed(1)),
    "SOFTMAX": _floats(Limit(lambda site: site.option("beta", 1) != 1, "its beta is not 1", README)),
    "PAD": _both(
        _computed(1),
        Limit(lambda site: min(site.values(1) or [0]) < 0, "it pads by less than nothing", README),
    ),
    "RESIZE_BILINEAR": _both(
        _computed(1), Limit(lambda site: len(site.shape()) != 4, "it is not over an image", README)
    ),
    "SLICE": _both(_computed(1, 2)),
    "STRIDED_SLICE": _both(*_STRIDED),
    "QUANTIZE": (
        Limit(
            lambda site: {tensor.dtype for tensor in site.activations} == set(common.BYTES),
            "it changes between signed and unsigned integers",
            README,
            "give the model signed ends",
        ),
        Limit(common.foreign_type(FLOAT, *common.BYTES), "XNNPACK does not quantize to or from {}", README),
        Limit(_requantizes_far, "its scales are too far apart", README),
    ),
    "DEQUANTIZE": (
        Limit(common.foreign_type(FLOAT, *common.BYTES), "XNNPACK does not dequantize {}", README),
        Limit(
            lambda site: any(tensor.scales.size > 1 for tensor in site.inputs),
            "it has a scale for each channel",
            README,
        ),
    ),
}
_KNOWN_SHAPES = Limit(
    common.empty,
    "the size of a tensor is not known before the model runs",
    README,
    "fix the sizes of the inputs",
)
_FEW_AXES = Limit(
    _many_axes,
    f"a tensor has more than {MOST_AXES} dimensions",
    "XNNPACK: XNN_MAX_TENSOR_DIMS",
)
_SCALED = Limit(common.without_scale, "an 8-bit tensor carries no scale", f"{README}: 8-bit quantized format")
CURES = {
    "RESIZE_NEAREST_NEIGHBOR": "use bilinear, or a transposed convolution",
    "SQUEEZE": "use a reshape",
    "EXPAND_DIMS": "use a reshape",
    "SPLIT_V": "use slices",
    "UNPACK": "use slices",
}
RULES = TfliteTable(
    UNIT, "XNNPACK", f"{README}; {RUN}", (_KNOWN_SHAPES, _FEW_AXES, _SCALED), OPERATORS, CURES
)
