"""Elementwise operators: they take their operands as they are stored."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from ....tflite import layout
from ....tflite.layout import Order
from ..builder import Builder, Value
from ._operation import Handler, Operation, UnsupportedError


def _aligned(b: Builder, value: Value, rank: int, order: Order) -> str:
    """Return an operand so that it broadcasts against others of this rank and order."""
    if value.rank == rank:
        return b.get(value, order)
    if math.prod(value.shape) == 1:
        scalar = Value(value.name, (), value.dtype, constant=value.constant)
        if value.constant is None:
            return b.reshape(b.get(value), (1,) * rank, f"{value.name}/scalar")
        scalar.constant = value.constant.reshape(())
        return b.get(scalar)
    wide = (1,) * (rank - value.rank) + value.shape
    if value.constant is not None:
        raised = Value(value.name, wide, value.dtype, constant=value.constant.reshape(wide))
        return b.get(raised, order)
    raised = Value(value.name, wide, value.dtype)
    b.put(raised, b.reshape(b.get(value), wide, f"{value.name}/raised"))
    return b.get(raised, order)


def operands(b: Builder, values: list[Value]) -> tuple[list[str], Order, layout.Shape]:
    """Return the operands in one order, that order, and the shape of the result in the file's order."""
    shape: layout.Shape = ()
    for value in values:
        shape = layout.broadcast(shape, value.shape)
    full = [v.native for v in values if v.constant is None and v.rank == len(shape)]
    moved = [order for order in full if order != layout.identity(len(shape))]
    order = next(iter([*moved, *full]), layout.identity(len(shape)))
    return [_aligned(b, v, len(shape), order) for v in values], order, shape


def _many(onnx_op: str, b: Builder, op: Operation) -> None:
    values = [op.input(i) for i in range(len(op.inputs))]
    names, order, shape = operands(b, values)
    plain = not op.activation
    name = b.node(onnx_op, names, op.output.name if plain else f"{op.output.name}/{onnx_op.lower()}")
    b.put(op.output, b.activation(op.activation, name, op.output.name), order, shape)


def _difference(b: Builder, op: Operation) -> None:
    names, order, shape = operands(b, [op.input(0), op.input(1)])
    name = b.node("Sub", names, f"{op.output.name}/difference")
    b.put(op.output, b.node("Mul", [name, name], op.output.name), order, shape)


def _unequal(b: Builder, op: Operation) -> None:
    names, order, shape = operands(b, [op.input(0), op.input(1)])
    name = b.node("Equal", names, f"{op.output.name}/equal")
    b.put(op.output, b.node("Not", [name], op.output.name), order, shape)


def _unary(onnx_op: str, b: Builder, op: Operation) -> None:
    x = op.input(0)
    attributes = {"alpha": float(op.options["alpha"])} if "alpha" in op.options else {}
    b.put(op.output, b.node(onnx_op, [b.get(x, x.native)], op.output.name, **attributes), x.native, x.shape)


def _activation(b: Builder, op: Operation) -> None:
    x = op.input(0)
    name = b.activation(op.name, b.get(x, x.native), op.output.name)
    b.put(op.output, name, x.native, x.shape)


def _square(b: Builder, op: Operation) -> None:
    x = op.input(0)
    name = b.get(x, x.native)
    b.put(op.output, b.node("Mul", [name, name], op.output.name), x.native, x.shape)


def _rsqrt(b: Builder, op: Operation) -> None:
    x = op.input(0)
    name = b.node("Sqrt", [b.get(x, x.native)], f"{op.output.name}/root")
    b.put(op.output, b.node("Reciprocal", [name], op.output.name), x.native, x.shape)


def _gelu(b: Builder, op: Operation) -> None:
    """Hendrycks and Gimpel 2016, in the exact form or with tanh."""
    x, result = op.input(0), op.output.name
    name = b.get(x, x.native)

    def const(value: float) -> str:
        return b.constant("gelu", np.float32(value))

    if op.options["approximate"]:
        cube = b.node("Mul", [b.node("Mul", [name, name], f"{result}/square"), name], f"{result}/cube")
        scaled = b.node("Mul", [cube, const(0.044715)], f"{result}/scaled")
        inner = b.node(
            "Mul",
            [b.node("Add", [name, scaled], f"{result}/sum"), const(math.sqrt(2 / math.pi))],
            f"{result}/inner",
        )
        gate = b.node("Tanh", [inner], f"{result}/tanh")
    else:
        gate = b.node(
            "Erf", [b.node("Mul", [name, const(math.sqrt(0.5))], f"{result}/scaled")], f"{result}/erf"
        )
    gate = b.node("Mul", [b.node("Add", [gate, const(1)], f"{result}/gate"), const(0.5)], f"{result}/half")
    b.put(op.output, b.node("Mul", [name, gate], result), x.native, x.shape)


def _prelu(b: Builder, op: Operation) -> None:
    names, order, shape = operands(b, [op.input(0), op.input(1)])
    b.put(op.output, b.node("PRelu", names, op.output.name), order, shape)


def _softmax(onnx_op: str, b: Builder, op: Operation) -> None:
    x = op.input(0)
    name, beta = b.get(x, x.native), float(op.options.get("beta", 1.0))
    if beta != 1:
        name = b.node("Mul", [name, b.constant("beta", np.float32(beta))], f"{op.output.name}/scaled")
    axis = x.native.index(x.rank - 1)
    b.put(op.output, b.node(onnx_op, [name], op.output.name, axis=axis), x.native, x.shape)


def _l2_normalization(b: Builder, op: Operation) -> None:
    x = op.input(0)
    axis = x.native.index(x.rank - 1)
    result = op.output.name if not op.activation else f"{op.output.name}/norm"
    name = b.node("LpNormalization", [b.get(x, x.native)], result, axis=axis, p=2)
    b.put(op.output, b.activation(op.activation, name, op.output.name), x.native, x.shape)


def _cast(b: Builder, op: Operation) -> None:
    import onnx

    x = op.input(0)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(op.output.dtype))
    b.put(op.output, b.node("Cast", [b.get(x, x.native)], op.output.name, to=kind), x.native, x.shape)


def _dequantize(_b: Builder, _op: Operation) -> None:
    raise UnsupportedError("it reads quantized activations; import the float model that they were made from")


ELEMENTWISE: dict[str, Handler] = {
    **{
        name: partial(_many, onnx_op)
        for name, onnx_op in {
            "ADD": "Add",
            "SUB": "Sub",
            "MUL": "Mul",
            "DIV": "Div",
            "POW": "Pow",
            "MAXIMUM": "Max",
            "MINIMUM": "Min",
            "ADD_N": "Sum",
            "LESS": "Less",
            "LESS_EQUAL": "LessOrEqual",
            "GREATER": "Greater",
            "GREATER_EQUAL": "GreaterOrEqual",
            "EQUAL": "Equal",
            "LOGICAL_AND": "And",
            "LOGICAL_OR": "Or",
            "SELECT": "Where",
            "SELECT_V2": "Where",
        }.items()
    },
    **{
        name: partial(_unary, onnx_op)
        for name, onnx_op in {
            "LOGISTIC": "Sigmoid",
            "TANH": "Tanh",
            "RELU": "Relu",
            "LEAKY_RELU": "LeakyRelu",
            "ELU": "Elu",
            "HARD_SWISH": "HardSwish",
            "SQRT": "Sqrt",
            "EXP": "Exp",
            "LOG": "Log",
            "ABS": "Abs",
            "NEG": "Neg",
            "FLOOR": "Floor",
            "CEIL": "Ceil",
            "ROUND": "Round",
            "SIN": "Sin",
            "COS": "Cos",
            "SIGN": "Sign",
            "LOGICAL_NOT": "Not",
        }.items()
    },
    "RELU6": _activation,
    "RELU_N1_TO_1": _activation,
    "RELU_0_TO_1": _activation,
    "PRELU": _prelu,
    "GELU": _gelu,
    "SQUARE": _square,
    "SQUARED_DIFFERENCE": _difference,
    "NOT_EQUAL": _unequal,
    "RSQRT": _rsqrt,
    "SOFTMAX": partial(_softmax, "Softmax"),
    "LOG_SOFTMAX": partial(_softmax, "LogSoftmax"),
    "L2_NORMALIZATION": _l2_normalization,
    "CAST": _cast,
    "DEQUANTIZE": _dequantize,
}
