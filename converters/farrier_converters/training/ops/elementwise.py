"""Operators that compute each element for itself."""

from __future__ import annotations

from functools import partial, reduce

import onnx
import torch
from torch import Tensor

from ._node import Function, Node

TYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.DOUBLE: torch.float64,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
    onnx.TensorProto.INT8: torch.int8,
    onnx.TensorProto.UINT8: torch.uint8,
    onnx.TensorProto.INT16: torch.int16,
    onnx.TensorProto.INT32: torch.int32,
    onnx.TensorProto.INT64: torch.int64,
    onnx.TensorProto.BOOL: torch.bool,
}


def _plain(function: Function) -> Function:
    return lambda _node: function


def _folded(function: Function) -> Function:
    return lambda _node: lambda *xs: reduce(function, xs)


def divide(x: Tensor, y: Tensor) -> Tensor:
    if x.is_floating_point() or y.is_floating_point():
        return x / y
    return torch.div(x, y, rounding_mode="trunc")


def modulo(node: Node) -> Function:
    return torch.fmod if node.get("fmod", 0) else torch.remainder


class _StraightRound(torch.autograd.Function):
    """Round half to even with the gradient of the identity (Bengio et al., arXiv 1308.3432).

    The true gradient is zero everywhere, so nothing before a Round would ever learn.
    """

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        del ctx
        return x.round()

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        del ctx
        return gradients[0]


def straight_round(x: Tensor) -> Tensor:
    """Round; gradients pass as if nothing had happened."""
    result: Tensor = _StraightRound.apply(x)  # pyright: ignore[reportAssignmentType]
    return result


def cast(node: Node) -> Function:
    kind = node.get("to")
    if kind not in TYPES:
        raise node.refuse(f"it makes elements of type {onnx.TensorProto.DataType.Name(kind)}")
    return partial(_cast, dtype=TYPES[kind])


def _cast(x: Tensor, *, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)


def cast_like(_node: Node) -> Function:
    return lambda x, like: x.to(like.dtype)


def power(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y.to(x.dtype) if x.is_floating_point() else y).to(x.dtype)


def is_inf(node: Node) -> Function:
    positive, negative = node.get("detect_positive", 1), node.get("detect_negative", 1)
    return lambda x: torch.isinf(x) & (((x > 0) & bool(positive)) | ((x < 0) & bool(negative)))


OPS = {
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(divide),
    "Pow": _plain(power),
    "Mod": modulo,
    "Neg": _plain(torch.neg),
    "Abs": _plain(torch.abs),
    "Sqrt": _plain(torch.sqrt),
    "Exp": _plain(torch.exp),
    "Log": _plain(torch.log),
    "Reciprocal": _plain(torch.reciprocal),
    "Floor": _plain(torch.floor),
    "Ceil": _plain(torch.ceil),
    "Round": _plain(straight_round),
    "Sign": _plain(torch.sign),
    "Sin": _plain(torch.sin),
    "Cos": _plain(torch.cos),
    "Tan": _plain(torch.tan),
    "Asin": _plain(torch.asin),
    "Acos": _plain(torch.acos),
    "Atan": _plain(torch.atan),
    "Sinh": _plain(torch.sinh),
    "Cosh": _plain(torch.cosh),
    "Asinh": _plain(torch.asinh),
    "Acosh": _plain(torch.acosh),
    "Atanh": _plain(torch.atanh),
    "Min": _folded(torch.minimum),
    "Max": _folded(torch.maximum),
    "Sum": _folded(torch.add),
    "Mean": _plain(lambda *xs: reduce(torch.add, xs) / len(xs)),
    "Equal": _plain(torch.eq),
    "Less": _plain(torch.lt),
    "LessOrEqual": _plain(torch.le),
    "Greater": _plain(torch.gt),
    "GreaterOrEqual": _plain(torch.ge),
    "And": _plain(torch.logical_and),
    "Or": _plain(torch.logical_or),
    "Xor": _plain(torch.logical_xor),
    "Not": _plain(torch.logical_not),
    "IsNaN": _plain(torch.isnan),
    "IsInf": is_inf,
    "Where": _plain(torch.where),
    "Cast": cast,
    "CastLike": cast_like,
}
