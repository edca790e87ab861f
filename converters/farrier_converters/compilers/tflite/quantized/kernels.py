"""Which operators of ONNX have kernels for 8-bit integers, and what is in the way of one where something is.

Source: tensorflow/lite/kernels, and tensorflow/lite/tools/versioning/op_version.cc for the types that each takes.
"""

from __future__ import annotations

from collections.abc import Callable

from ....tflite import schema
from ..errors import UnsupportedError
from ..node import Node
from ..ops.resample import only_moves
from ..window import axes_of, lifted, padding_of

Check = Callable[[Node], str | None]


def _always(_node: Node) -> str | None:
    return None


def _first_only(node: Node) -> str | None:
    if any(value is not None and value.readers for value in node.outputs[1:]):
        return "more than its first output is used"
    return None


def _average(node: Node) -> str | None:
    """TFLite's own pool, which divides by the elements inside, is the one integer kernel."""
    x = node.input(0)
    if x.rank not in (3, 4):
        return "integer kernels pool over one or two axes"
    try:
        axes = axes_of(node, x.shape, node.attr("kernel_shape"), ceil=bool(node.attr("ceil_mode", 0)))
    except UnsupportedError as error:
        return str(error)
    padding = padding_of(lifted(axes))
    inside = padding == schema.SAME and not node.attr("count_include_pad", 0)
    plain = all(axis.dilation == 1 for axis in axes) and (padding == schema.VALID or inside)
    return None if plain else "its padding counts in the mean, or is not one of TFLite's"


def _one(name: str) -> Check:
    def check(node: Node) -> str | None:
        return None if node.attr(name, 1.0) == 1 else f"its {name} is not 1"

    return check


def _slope(node: Node) -> str | None:
    """PRELU takes a slope without the first axis."""
    x, slope = node.input(0), node.input(1)
    whole = (1,) * (x.rank - slope.rank) + slope.shape
    return None if whole[:1] == (1,) and x.rank in (2, 3, 4) else "its slope differs from row to row"


def _bounds(node: Node) -> str | None:
    computed = any(v is not None and v.constant is None for v in node.inputs[1:3])
    return "its bounds are computed" if computed else None


def _rising(node: Node) -> str | None:
    return None if float(node.attr("alpha", 0.2)) > 0 else "it does not rise"


def _resize(node: Node) -> str | None:
    return None if only_moves(node) else "no integer kernel interpolates so"


KERNELS: dict[str, Check] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Concat", "Sigmoid", "Tanh", "HardSwish"), _always),
    **dict.fromkeys(("Softmax", "LogSoftmax", "LeakyRelu", "GlobalAveragePool", "GlobalMaxPool"), _always),
    **dict.fromkeys(("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ArgMax", "ArgMin"), _always),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"), _always),
    **dict.fromkeys(("Gather", "Expand", "Tile", "Pad", "DepthToSpace", "SpaceToDepth", "Identity"), _always),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm", "MatMul", "Relu", "Dropout"), _always),
    "AveragePool": _average,
    "Clip": _bounds,
    "Elu": _one("alpha"),
    "HardSigmoid": _rising,
    "MaxPool": _first_only,
    "PRelu": _slope,
    "Resize": _resize,
    "Upsample": _resize,
    "Swish": _one("alpha"),
}
JOINED = ("Concat", "Max", "Min")  # every input in the scale of the output
LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CLIPS = ("Relu", "Clip")
OPERANDS = (
    "Add",
    "Sub",
    "Mul",
    "Max",
    "Min",
    "PRelu",
    "Concat",
)  # all inputs are tensors; of others, the first is
# LiteRT 2.3 computes these one element at a time: 4 to 150 times as long as float kernels (one x86 core; 200,000
# elements, products of 256 x 64 and 64 x 256), and longer than these between a DEQUANTIZE and a QUANTIZE.
SLOW = ("HardSwish", "PRelu", "Softmax")


def slow(node: Node) -> bool:
    """Say whether a processor has a faster way than the integer kernel."""
    return node.op in SLOW or (node.op == "MatMul" and node.input(1).constant is None)
