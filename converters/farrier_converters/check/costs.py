"""Multiply-adds of operators, and bytes of element types. Free dimensions count as 1."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from ..graph.edit import attribute
from ..graph.types import TensorType
from ..tflite.file import Operator, Tensor, TfliteFile

Shape = tuple[int, ...]
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4, "DynamicQuantizeLSTM": 4}
# operator -> positions of its first and second factor
ONNX_CONVOLUTIONS = {"Conv": (0, 1), "FusedConv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3)}
ONNX_PRODUCTS = {
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "MatMulNBits": (0, 1),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}


def width(dtype: str) -> int:
    """Return the bytes of one element of a TFLite type; types of fewer than 8 bits count as one."""
    bits = "".join(character for character in dtype if character.isdigit())
    return max(int(bits) // 8, 1) if bits else 1


def bytes_of(tensor: Tensor) -> int:
    """Return the bytes of a tensor of a TFLite file."""
    return math.prod(tensor.shape) * width(tensor.dtype)


def onnx_width(dtype: int) -> int:
    """Return the bytes of one element of an ONNX type; 0 for strings and what is unknown."""
    try:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(dtype))
    except (KeyError, TypeError):
        return 0
    return 0 if kind == np.dtype(object) else kind.itemsize


def of_tflite(file: TfliteFile, operator: Operator) -> int:
    """Return the multiply-adds of one operator of a TFLite file; 0 for what does not multiply matrices."""
    shapes = [file.tensors[i].shape if i >= 0 else () for i in operator.inputs]
    if not operator.outputs or len(shapes) < 2:
        return 0
    result = math.prod(file.tensors[operator.outputs[0]].shape)
    first, second = shapes[0], shapes[1]
    if operator.name in ("CONV_2D", "CONV_3D"):
        return result * math.prod(second[1:])
    if operator.name == "DEPTHWISE_CONV_2D":
        return result * math.prod(second[1:3])
    if operator.name == "TRANSPOSE_CONV" and len(shapes) > 2:
        return math.prod(shapes[2]) * math.prod(second[:-1])
    if operator.name == "FULLY_CONNECTED":
        return result * math.prod(second[1:])
    if operator.name == "BATCH_MATMUL" and first:
        return result * first[-2 if operator.options.get("adjoint_x") and len(first) > 1 else -1]
    if operator.name.endswith("SEQUENCE_LSTM"):
        both = 2 if operator.name.startswith("BIDIRECTIONAL") else 1
        return both * math.prod(first[:2]) * sum(math.prod(shape) for shape in shapes[1:9])
    return 0


def of_onnx(node: onnx.NodeProto, types: dict[str, TensorType]) -> int:
    """Return the multiply-adds of one ONNX node; 0 for what does not multiply matrices, and inside of branches."""

    def shape(position: int) -> Shape:
        kind = types.get(node.input[position]) if position < len(node.input) else None
        return () if kind is None or kind.shape is None else tuple(size or 1 for size in kind.shape)

    made = types.get(node.output[0]) if node.output else None
    result = math.prod(size or 1 for size in made.shape) if made is not None and made.shape is not None else 0
    if node.op_type in ONNX_CONVOLUTIONS:
        return result * math.prod(shape(ONNX_CONVOLUTIONS[node.op_type][1])[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(shape(0)) * math.prod(shape(1)[1:])
    if node.op_type in ONNX_PRODUCTS:
        first = shape(ONNX_PRODUCTS[node.op_type][0])
        transposed = node.op_type in ("Gemm", "QGemm", "FusedMatMul") and attribute(node, "transA", 0)
        return result * first[-2 if transposed and len(first) > 1 else -1] if first else 0
    if node.op_type in GATES:
        steps = math.prod(shape(0)[:2])
        return steps * (math.prod(shape(1)) + math.prod(shape(2)))
    return 0
