"""The limits of single operators on Coral's Edge TPU.

Sources, by the names used below:
- AX: Axis ARTPEC-7 "Supported ops", which republishes Coral's table; OLD: copies of that table from 2019.
- AXT: Axis ARTPEC-7 "Optimization tips"; C1: Coral "TensorFlow models on the Edge TPU"; C3: Coral "Pipeline a model".
- LC: google-coral/libcoral, CHANGES.md; E#n: google-coral/edgetpu, issue n. All for compiler 16.0, the last one.
"""

from __future__ import annotations

import math

from ...limits import Limit, TfliteTable
from ...site import Site
from .. import common
from . import questions as ask

UNIT = "edgetpu"
SOFTMAX_ELEMENTS = 16_000
LARGE_RESHAPE = 400_000  # bytes: 28x28x255 was mapped, 48x48x255 was not
LARGE_RESIZE = 4 << 20  # bytes: 128x128x32 and 80x80x256 were mapped, 512x512x32 was not
LARGE_DENSE = 100_000  # results: so many were not mapped
LARGE_DECONVOLUTION = 1 << 20  # bytes of weights

_QUANTIZE = "quantize the whole model to 8 bits, its ends included: farrier optimize with this target"
_CONSTANT = Limit(
    common.computed(1, 2),
    "its weights or its bias ({}) are computed while the model runs",
    "OLD; E#25",
    "make them constants, or leave this part to the CPU as the last one",
)


def _computed_axes(reason: str = "its second input ({}) is computed while the model runs") -> Limit[Site]:
    return Limit(common.computed(1), reason, "C1: sizes are constant when compiling")


EVERYWHERE = (
    Limit(
        common.foreign_type(*common.BYTES),
        "it works on {}, and the Edge TPU computes in 8 bits",
        "C1; AXT",
        _QUANTIZE,
    ),
    Limit(common.float_constant, "one of its constants is stored in floats", "C1; AXT", _QUANTIZE),
    Limit(common.without_scale, "a tensor of it carries no scale", "C1: fully quantized", _QUANTIZE),
    Limit(
        common.empty,
        "the size of a tensor is not known before the model runs",
        "AXT; OLD",
        "fix the sizes of the inputs, the batch too",
    ),
    Limit(
        ask.outer_dimension,
        "a tensor of {} has a fourth dimension above 1",
        "AXT; E#75",
        "fix the batch to 1, and keep other tensors within three dimensions",
    ),
    Limit(
        ask.newer_than_compiler,
        "its definition came with TFLite {}, after the last compiler",
        "E#420: operation version not supported",
        "convert the model with an older converter",
        confirmed=False,
    ),
)
_POOL = (
    Limit(common.fused_activation, "it ends in a fused {}", "AX", "use an activation operator of its own"),
)
_FREE: tuple[Limit[Site], ...] = ()
_BATCH = Limit(common.touches_batch(), "it works along the batch", "AX", "keep the batch out of it")
_YOLO = "a log of YOLOv9 at 192x192 (dbro/frigate-detector-edgetpu-yolo9)"
_DOUBT = "whether the compiler maps it no document says"


def _doubt(source: str) -> Limit[Site]:
    return Limit(lambda site: True, _DOUBT, source, confirmed=False, refuses=False)


def _several_rows(broken: common.Question, document: str) -> Limit[Site]:
    reason = "it has more than one row, which documents exclude, and which compiler 16 was seen to map all the same"
    return Limit(broken, reason, f"{document}, E#27; against it {_YOLO}", confirmed=False, refuses=False)


_RESIZE = (
    _computed_axes(),
    Limit(
        ask.enlarges_much,
        "it enlarges {} times, which the compiler is likely to refuse for its precision",
        "AX: not mapped for some sizes; DeepLab's compiled twin: 1x1 to 33x33 stays on the CPU",
        "enlarge in steps of 2, with convolutions between",
        confirmed=False,
    ),
    Limit(
        ask.large(LARGE_RESIZE),
        "its result of {} bytes is likely to be too large",
        "AX: not mapped for some sizes; E#31: 512x512x32 stays on the CPU, 128x128x32 does not",
        "resize to a smaller size, or leave it out and resize on the CPU",
        confirmed=False,
    ),
    Limit(
        ask.enlarges_oddly,
        "other enlargements than 2 may be refused for their precision",
        "AX: not mapped for some sizes",
        confirmed=False,
        refuses=False,
    ),
)
OPERATORS: dict[str, tuple[Limit[Site], ...]] = {
    **{
        name: _FREE
        for name in (
            "ADD",
            "SUB",
            "MUL",
            "MAXIMUM",
            "MINIMUM",
            "TANH",
            "RELU",
            "RELU6",
            "RELU_N1_TO_1",
            "LOGISTIC",
            "L2_NORMALIZATION",
            "EXPAND_DIMS",
            "QUANTIZE",
            "SQUEEZE",
            "SPACE_TO_DEPTH",
        )
    },
    "AVERAGE_POOL_2D": _POOL,
    "MAX_POOL_2D": _POOL,
    "CONCATENATION": (
        *_POOL,
        Limit(
            ask.not_zeros,
            "it joins a constant that is not a single block of zeros",
            "AX",
            "join computed tensors only, or pad",
        ),
    ),
    **{
        name: (
            _CONSTANT,
            Limit(
                lambda site: len(set(common.dilation(site))) > 1,
                "its dilations differ in height and width",
                "AX",
                "use one dilation",
            ),
        )
        for name in ("CONV_2D", "DEPTHWISE_CONV_2D")
    },
    "FULLY_CONNECTED": (
        _CONSTANT,
        Limit(lambda site: site.option("weights_format") != 0, "its weights are stored shuffled", "AX"),
        Limit(
            lambda site: (site.output_shape or (0,))[-1] >= LARGE_DENSE,
            f"dense layers of {LARGE_DENSE:,} results and more are likely to stay on the CPU",
            "LC: tools/split_fc, which divides such layers",
            "divide it into several dense layers",
            confirmed=False,
        ),
        _several_rows(ask.not_flat, "AX: one-dimensional output"),
    ),
    "TRANSPOSE_CONV": (
        Limit(common.computed(0, 1, 3), "its weights, bias or size ({}) are computed", "OLD; E#25"),
        Limit(
            lambda site: math.prod(site.shape(1)) > LARGE_DECONVOLUTION,
            "with so many weights it may be refused",
            "E#684: 1024 to 512 channels",
            confirmed=False,
            refuses=False,
        ),
    ),
    "PRELU": (
        Limit(common.computed(1), "its slope ({}) is computed", "AX"),
        Limit(
            ask.slope_not_flat,
            "its slope is not one number per channel",
            "AX",
            "share the slope over height and width (Keras: shared_axes=[1, 2])",
        ),
    ),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (
        Limit(common.computed(*range(1, 9), *range(12, 16)), "its weights ({}) are computed", "AX; OLD"),
    ),
    "MEAN": (
        _computed_axes(),
        _BATCH,
        Limit(
            ask.depth_not_of_four,
            "it averages channels whose number is no multiple of 4",
            "AX",
            "pad the channels to a multiple of 4",
        ),
        Limit(
            ask.averages_many,
            "it averages over more elements than was ever seen mapped",
            "E#461: 256x128 stays on the CPU, 64x128 does not",
            "average in steps: pool first",
            confirmed=False,
        ),
    ),
    "REDUCE_MAX": (_computed_axes(), _BATCH),
    "REDUCE_MIN": (_computed_axes(), _BATCH),
    "SUM": (_computed_axes(), Limit(_BATCH.broken, _BATCH.reason, "by analogy with MEAN", confirmed=False)),
    "PACK": (
        Limit(
            lambda site: len(site.output_shape) == 4 and int(site.option("axis")) % 4 == 0,
            "it works along the batch",
            "AX",
        ),
    ),
    "PAD": (_computed_axes(),),  # of a padded batch, the fourth dimension tells
    "RESHAPE": (
        Limit(
            ask.large(LARGE_RESHAPE),
            "some reshapes of large tensors are not mapped, and this one has {} bytes",
            "AX; E#512: 48x48x255 stays on the CPU",
            "choose a smaller input, or reshape after the model",
            confirmed=False,
        ),
    ),
    "SLICE": (Limit(common.computed(1, 2), "where it cuts ({}) is computed", "C1"),),
    "SPLIT": (
        Limit(
            lambda site: len(site.shape(1)) == 4 and 0 in {a % 4 for a in site.values(0) or []},
            "it splits the batch",
            "by analogy with PACK",
            confirmed=False,
        ),
    ),
    "STRIDED_SLICE": (
        Limit(common.computed(1, 2, 3), "where it cuts ({}) is computed", "C1"),
        Limit(lambda site: set(site.values(3) or [1]) != {1}, "its strides are not all 1", "OLD"),
        Limit(
            lambda site: site.option("ellipsis_mask") or site.option("new_axis_mask"),
            "it uses an ellipsis or a new axis",
            "OLD",
        ),
    ),
    "SOFTMAX": (
        _several_rows(ask.not_flat, "OLD: one-dimensional input"),
        Limit(
            lambda site: (site.shape() or (1,))[-1] > SOFTMAX_ELEMENTS,
            f"it has more than {SOFTMAX_ELEMENTS} elements",
            "OLD",
            "leave the softmax to the CPU, as the last operator",
        ),
    ),
    "RESIZE_BILINEAR": _RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": _RESIZE,
    "TRANSPOSE": (_computed_axes(), _doubt("E#433: mapped and not mapped")),
    "RSQRT": (_doubt("listed for runtime 14 by some copies of the table"),),
    "SQUARED_DIFFERENCE": (_doubt("listed for runtime 14 by some copies of the table"),),
}
CURES = {
    "LEAKY_RELU": "use ReLU or PReLU (E#147)",
    "HARD_SWISH": "use ReLU6",
    "DIV": "multiply by the reciprocal",
    "BATCH_MATMUL": "make one of its operands constant: a convolution or a dense layer",
    "DEQUANTIZE": "quantize the ends of the model too",
    "ARG_MAX": "leave it to the CPU, as the last operator",
    "GATHER": "use slices or a one-hot convolution",
}
TABLE = TfliteTable(UNIT, "the Edge TPU", "AX: not in the table of operators", EVERYWHERE, OPERATORS, CURES)
