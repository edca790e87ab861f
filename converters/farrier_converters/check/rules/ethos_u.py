"""Arm Ethos-U55 and U65: which operators of a TFLite file Vela puts on the NPU; what it refuses runs on the Cortex-M.

Source: the report that Vela 5.2 makes of itself (`vela --supported-ops-report`), its part on Ethos-U55 and U65.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..limits import Limit, TfliteTable
from ..site import Site
from . import common

UNIT = "ethos-u"
SOURCE = "Vela 5.2, supported operators of Ethos-U55 and U65"
FEATURES = ("int8", "uint8", "int16", "int32", "int64")
WHOLE_KERNELS = 256 * 256  # the largest pool, width times height
HIGHEST_KERNEL, SAME_KERNEL = 256, 8
STEP = 3  # the largest stride of most kernels
WEIGHT_SUM = 8_323_072  # of absolute weights behind one result: 65,536 times 127
LARGE_BIAS = 1 << 40
AXIS = 1 << 16
MEAN_ELEMENTS = {"int8": 1 << 24, "uint8": 1 << 23, "int16": 1 << 16}
MEAN_AXIS = 4096
SOFTMAX_PIXELS = 1 << 16
ENLARGEMENTS = (2, 4, 8)
VALID = 1
# operators whose constraints do not exclude 32-bit tensors
WIDE = ("ADD", "SUB", "MUL", "NEG", "ARG_MAX", "TRANSPOSE", "SUM", "RESHAPE", "SQUEEZE", "EXPAND_DIMS")


def _features(site: Site) -> list[str]:
    return [tensor.dtype for tensor in site.activations]


def _wide(site: Site) -> object:
    return next((kind for kind in _features(site) if kind in ("int32", "int64")), "")


def _per_axis(site: Site) -> object:
    return any(tensor.scales.size > 1 for tensor in (*site.inputs, *site.outputs))


def _unscaled(site: Site) -> object:
    """Is there an activation without a positive scale? Vela asks none of 32-bit tensors, whatever its report says."""
    narrow = (tensor for tensor in site.activations if tensor.dtype not in ("int32", "int64"))
    return any(not tensor.scales.size or float(tensor.scales.min()) <= 0 for tensor in narrow)


def _weight_sum(site: Site) -> object:
    weights = site.tensor(1)
    if weights is None or weights.data is None or not weights.data.size or weights.data.ndim < 2:
        return False
    offset = int(weights.zero_points[0]) if weights.zero_points.size else 0
    behind_one = tuple(range(1, weights.data.ndim))
    return int(np.abs(weights.data.astype(np.int64) - offset).sum(axis=behind_one).max()) > WEIGHT_SUM


def _wide_weights(site: Site) -> object:
    weights = site.tensor(1)
    return (
        weights.dtype
        if weights is not None and weights.data is not None and weights.data.itemsize != 1
        else ""
    )


def _large_bias(site: Site) -> object:
    found = [site.tensor(position) for position in (2, 3)]
    biases = (t.data for t in found if t is not None and t.data is not None and t.dtype == "int64")
    return any(int(np.abs(bias).max(initial=0)) >= LARGE_BIAS for bias in biases)


def _long_stride(site: Site) -> object:
    plain = max(common.dilation(site)) == 1 and site.option("padding") == VALID
    return max(common.stride(site)) > STEP and not plain


def _window(site: Site) -> tuple[int, int]:
    return int(site.option("filter_h", 1)), int(site.option("filter_w", 1))


def _average_window(site: Site) -> object:
    height, width = _window(site)
    if site.option("padding") == VALID:
        return height * width > WHOLE_KERNELS or height > HIGHEST_KERNEL
    return max(height, width) > SAME_KERNEL


def _largest_window(site: Site) -> object:
    height, width = _window(site)
    return height * width > WHOLE_KERNELS or height > HIGHEST_KERNEL


def _mean(site: Site) -> object:
    shape, kind = site.shape(), (_features(site) or [""])[0]
    axes = {axis for axis in site.axes() if axis < len(shape)}
    if kind not in MEAN_ELEMENTS:
        return f"it averages {kind}"
    if len(shape) == 4 and shape[0] != 1:
        return "its batch is not 1"
    if math.prod(shape[axis] for axis in axes) > MEAN_ELEMENTS[kind] or any(
        shape[a] >= MEAN_AXIS for a in axes
    ):
        return "it averages over too many elements"
    if len(shape) - 1 in axes and 1 not in shape[-3:]:
        return "it averages over channels, height and width being above 1"
    return ""


def _resize(site: Site) -> object:
    before, after = site.shape()[1:3], site.output_shape[1:3]
    if before in (after, (1, 1)) or len(before) != 2 or len(after) != 2:
        return False
    shift = 1 if site.option("align_corners") else 0
    factors = [
        (new - shift) / (old - shift) if old > shift else 1.0 for old, new in zip(before, after, strict=True)
    ]
    allowed = (2,) if site.option("half_pixel") and site.operator.name == "RESIZE_BILINEAR" else ENLARGEMENTS
    if factors[0] != factors[1]:
        flat = [factor for size, factor in zip(after, factors, strict=True) if size != 1]
        return len(flat) != 1 or flat[0] not in allowed
    return factors[0] not in allowed


def _other_scale(site: Site) -> object:
    return not common.same_quantization(site)


def _permuted(site: Site) -> object:
    shape, order = site.shape(), site.values(1) or []
    if sorted(order) != list(range(len(shape))) or order == sorted(order):
        return False
    inner = len(shape) <= 3 or (
        math.prod(shape[:-3]) == 1 and order[: len(shape) - 3] == list(range(len(shape) - 3))
    )
    if inner:
        return max(shape[-3:], default=0) > AXIS
    pairs = ((i, j) for i in range(len(shape)) for j in range(i))
    whole = math.prod(shape)
    return any(whole // max(shape[i] * shape[j], 1) > AXIS for i, j in pairs)


def _deconvolution(site: Site) -> object:
    weights, image, result = site.shape(1), site.shape(2), site.output_shape
    if len(weights) != 4 or len(image) != 4 or len(result) != 4:
        return True
    height, width = common.stride(site)
    narrow = (height, width) == (1, 2) and image[1] == weights[1] == 1
    low = (height, width) == (2, 1) and image[2] == weights[2] == 1
    if (height, width) not in ((1, 1), (2, 2)) and not narrow and not low:
        return True
    extra = (weights[1] - height, weights[2] - width) if site.option("padding") == VALID else (0, 0)
    return result[1:3] != (image[1] * height + extra[0], image[2] * width + extra[1])


def _lstm_variant(site: Site) -> object:
    unused = (
        1,
        *range(9, 12),
        16,
        17,
        *range(20, 24),
    )  # input gate given; peepholes, projection, norms left out
    present = [site.tensor(position) is not None for position in unused]
    return not present[0] or any(present[1:])


def _backward_slice(site: Site) -> object:
    return min(site.values(3) or [1]) < 1


def _limit(broken: common.Question, reason: str, cure: str | None = None) -> Limit[Site]:
    return Limit(broken, reason, SOURCE, cure)


_NARROW = _limit(_wide, "it works on {}")
_WEIGHTS = (
    _NARROW,
    _limit(_wide_weights, "its weights are stored in {}", "quantize the weights to 8 bits"),
    _limit(
        _weight_sum, "the sum of its weights is too large for the accumulator", "divide it into smaller ones"
    ),
    _limit(_large_bias, "its bias does not fit 40 bits"),
)
_BIAS = _limit(common.computed(2), "its bias ({}) is computed")
_SHORT_STRIDE = _limit(lambda site: max(common.stride(site)) > STEP, f"its stride is above {STEP}")
_STRIDE = _limit(_long_stride, f"a stride above {STEP} needs a dilation of 1 and no padding")
_PER_TENSOR = _limit(_per_axis, "it has a scale for each channel")
_SCALED = _limit(_unscaled, "a tensor carries no scale", "quantize the whole model to 8 bits")
_PARAMETERS = _limit(common.computed(1), "what it needs as a constant ({}) is computed")
_RESIZE = (
    _NARROW,
    _PARAMETERS,
    _limit(_resize, "it enlarges by other than 2, 4 or 8, alike in both directions"),
)
_PAD = (_PARAMETERS, _PER_TENSOR)
_MATMUL = (
    _PER_TENSOR,
    _limit(lambda site: set(_features(site)) - {"int8"}, "with two computed factors it takes int8 only"),
    _limit(
        lambda site: max(site.shape()[-1:] + site.output_shape[-1:], default=0) > AXIS, "an axis is too long"
    ),
)
_SAME_SCALE = _limit(_other_scale, "its inputs and its result have different scales", "give them one scale")
_SPECIFIC: dict[str, Sequence[Limit[Site]]] = {
    "ARG_MAX": (
        _limit(lambda site: (site.shape() or (1,))[-1] > 127, "it looks at more than 127 channels"),
        _limit(lambda site: site.axes() != {len(site.shape()) - 1}, "it does not look along the channels"),
    ),
    "AVERAGE_POOL_2D": (_limit(_average_window, "its window is too large", "pool in two steps"), _STRIDE),
    "MAX_POOL_2D": (_limit(_largest_window, "its window is too large", "pool in two steps"), _STRIDE),
    "BATCH_MATMUL": _MATMUL,
    "CONV_2D": (*_WEIGHTS, _BIAS, _STRIDE),
    "DEPTHWISE_CONV_2D": (*_WEIGHTS, _BIAS, _SHORT_STRIDE),
    "FULLY_CONNECTED": (*_WEIGHTS, _BIAS),
    "TRANSPOSE_CONV": (
        *_WEIGHTS,
        _limit(common.computed(3), "its bias ({}) is computed"),
        _limit(_deconvolution, "its stride or its size is one that the NPU has not"),
    ),
    "MAXIMUM": (_SAME_SCALE,),
    "MINIMUM": (_SAME_SCALE,),
    "MEAN": (_PARAMETERS, _limit(_mean, "{}")),
    "MIRROR_PAD": _PAD,
    "PAD": _PAD,
    "PADV2": _PAD,
    "RESIZE_BILINEAR": _RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
    "SLICE": (_limit(common.computed(1, 2), "where it cuts ({}) is computed"),),
    "STRIDED_SLICE": (
        _limit(common.computed(1, 2, 3), "where it cuts ({}) is computed"),
        _limit(_backward_slice, "it goes backwards"),
    ),
    "SOFTMAX": (_limit(lambda site: math.prod(site.shape()[:-1]) >= SOFTMAX_PIXELS, "it has too many rows"),),
    "ELU": (_limit(lambda site: set(_features(site)) != {"int8"}, "it takes int8 only"),),
    "GELU": (_limit(lambda site: set(_features(site)) - set(common.BYTES), "it takes 8 bits only"),),
    "LOG": (_limit(lambda site: set(_features(site)) - {"int8", "int16"}, "it takes int8 or int16 only"),),
    "RSQRT": (_limit(lambda site: set(_features(site)) - {"int8", "int16"}, "it takes int8 or int16 only"),),
    "TRANSPOSE": (_PARAMETERS, _limit(_permuted, "it moves axes that are too long")),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        _NARROW,
        _limit(
            _lstm_variant,
            "it is a variant (coupled gates, peepholes, projection, norms) that the NPU has not",
        ),
    ),
}
_PLAIN = (
    "ABS",
    "ADD",
    "CONCATENATION",
    "EXP",
    "EXPAND_DIMS",
    "HARD_SWISH",
    "LEAKY_RELU",
    "LOGISTIC",
    "MUL",
    "NEG",
    "PACK",
    "PRELU",
    "QUANTIZE",
    "REDUCE_MAX",
    "REDUCE_MIN",
    "RELU",
    "RELU6",
    "RELU_0_TO_1",
    "RELU_N1_TO_1",
    "RESHAPE",
    "SPLIT",
    "SPLIT_V",
    "SQUARED_DIFFERENCE",
    "SQUEEZE",
    "SUB",
    "SUM",
    "TANH",
    "TILE",
    "UNPACK",
)  # generic limits alone
_UNSCALED_TOO = ("ARG_MAX", "EXPAND_DIMS", "MIRROR_PAD", "PAD", "PADV2", "QUANTIZE", "TRANSPOSE")
_PER_AXIS_TOO = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")


def _with_generic(name: str, specific: Sequence[Limit[Site]]) -> Sequence[Limit[Site]]:
    generic = [
        *(() if name in WIDE else (_NARROW,)),
        *(() if name in _UNSCALED_TOO else (_SCALED,)),
        *(() if name in _PER_AXIS_TOO else (_PER_TENSOR,)),
    ]
    return (*generic, *specific)


EVERYWHERE = (
    _limit(
        common.foreign_type(*FEATURES),
        "it works on {}, and the NPU computes in integers",
        "quantize the model",
    ),
    _limit(
        common.empty, "the size of a tensor is not known before the model runs", "fix the sizes of the inputs"
    ),
    _limit(lambda site: not site.inputs or not site.outputs, "it has no input or no output"),
)
OPERATORS = {name: _with_generic(name, _SPECIFIC.get(name, ())) for name in (*_PLAIN, *_SPECIFIC)}
# REVERSE_V2 is in the report, but without its axis, and Vela leaves it to the CPU
CURES = {"DEQUANTIZE": "quantize the ends of the model too"}
RULES = TfliteTable(UNIT, "the Ethos-U", SOURCE, EVERYWHERE, OPERATORS, CURES)
