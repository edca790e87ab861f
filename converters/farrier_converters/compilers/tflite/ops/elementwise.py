"""Elementwise operators: they take their operands as they are stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..operands import aligned

Composition = Callable[[Builder, Held], Held]
UNSIGNED = ("uint8", "uint32", "uint16", "uint64")


def unary(name: str, b: Builder, node: Node) -> None:
    """One operator of TFLite with one input."""
    x = node.input(0)
    b.put(node.output, b.unary(name, b.get(x, x.native)), x.native)


def composed(make: Composition, b: Builder, node: Node) -> None:
    """Several operators of TFLite, from one input."""
    x = node.input(0)
    b.put(node.output, make(b, b.get(x, x.native)), x.native)


def binary(name: str, b: Builder, node: Node) -> None:
    """One operator of TFLite with two operands that broadcast."""
    x, y = node.input(0), node.input(1)
    order, (left, right) = aligned(b, _broadcastable(node, x, y), node.output.rank)
    b.put(node.output, _full(b, b.binary(name, left, right, node.output.dtype), node.output, order), order)


def _broadcastable(node: Node, x: Value, y: Value) -> list[Value]:
    """Before operator set 7, the second operand is laid along an axis of the first."""
    axis = node.attr("axis")
    if node.opset >= 7 or axis is None or y.rank == x.rank or y.constant is None:
        return [x, y]
    tail = x.rank - axis % x.rank - y.rank
    return [
        x,
        Value(y.name, (*y.shape, *(1,) * tail), y.dtype, constant=y.constant.reshape(*y.shape, *(1,) * tail)),
    ]


def _full(b: Builder, held: Held, value: Value, order: layout.Order) -> Held:
    """Put axes of size 1 back that both operands lacked."""
    return b.reshape(held, layout.permuted(value.shape, order))


def _add(b: Builder, node: Node) -> None:
    """A constant added to what a dense layer without a bias makes is its bias."""
    for dense, bias in (node.inputs, node.inputs[::-1]):
        if dense is not None and bias is not None and _becomes_bias(b, node, dense, bias):
            return
    binary("ADD", b, node)


def _becomes_bias(b: Builder, node: Node, dense: Value, bias: Value) -> bool:
    if bias.constant is None or dense.readers != 1 or len(dense.forms) != 1 or dense.dtype != "float32":
        return False
    held = dense.forms[dense.native]
    made = b.maker(held)
    if made is None or made[0] != "FULLY_CONNECTED" or not b.untouched(held):
        return False
    _, inputs, options = made
    if inputs[2] != -1 or options.get("activation") or bias.constant.size != held.shape[-1]:
        return False
    if (
        bias.shape[-1:] != held.shape[-1:]
        or dense.native[-1] != dense.rank - 1
        or node.output.shape != dense.shape
    ):
        return False
    inputs[2] = b.constant(bias.constant.reshape(-1)).index
    b.put(node.output, held, dense.native)
    return True


def _variadic(name: str, b: Builder, node: Node) -> None:
    values = [node.input(i) for i in range(len(node.inputs))]
    order, held = aligned(b, values, node.output.rank)
    result = reduce(lambda left, right: b.binary(name, left, right), held)
    b.put(node.output, _full(b, result, node.output, order), order)


def _mean(b: Builder, node: Node) -> None:
    values = [node.input(i) for i in range(len(node.inputs))]
    order, held = aligned(b, values, node.output.rank)
    total = reduce(lambda left, right: b.binary("ADD", left, right), held)
    result = b.binary("MUL", total, 1 / len(values)) if len(values) > 1 else total
    b.put(node.output, _full(b, result, node.output, order), order)


def _divide(b: Builder, node: Node) -> None:
    """ONNX divides whole numbers towards zero, as TFLite's DIV does."""
    binary("DIV", b, node)


def _power(b: Builder, node: Node) -> None:
    x, exponent = node.input(0), node.input(1)
    value = exponent.constant
    if value is not None and value.size == 1 and x.dtype == "float32" and exponent.rank <= x.rank:
        make = {2.0: "SQUARE", 0.5: "SQRT", -0.5: "RSQRT"}.get(float(value.ravel()[0]))
        if make:
            unary(make, b, node)
            return
    order, (left, right) = aligned(b, [x, exponent], node.output.rank)
    kind = "float32" if "float32" in (left.dtype, right.dtype) else "int32"
    if x.dtype == "int64" and kind == "int32":
        raise UnsupportedError(Code.DTYPE, "a power of int64")
    result = b.cast(b.binary("POW", b.cast(left, kind), b.cast(right, kind)), x.dtype)
    b.put(node.output, _full(b, result, node.output, order), order)


def _modulo(b: Builder, node: Node) -> None:
    """FLOOR_MOD has the divisor's sign as Python's does; with `fmod` the dividend's, which is |x| mod |y|, signed."""
    x, y = node.input(0), node.input(1)
    order, (left, right) = aligned(b, [x, y], node.output.rank)
    if not node.attr("fmod", 0):
        result = b.binary("FLOOR_MOD", left, right)
    else:
        rest = b.binary("FLOOR_MOD", b.unary("ABS", left), b.unary("ABS", right))
        negative = b.binary("LESS", left, 0, "bool")
        result = b.op("SELECT_V2", [negative, b.unary("NEG", rest), rest], rest.shape, rest.dtype)
    b.put(node.output, _full(b, result, node.output, order), order)


def _where(b: Builder, node: Node) -> None:
    values = [node.input(i) for i in range(3)]
    order, held = aligned(b, values, node.output.rank)
    shape = layout.broadcast(layout.broadcast(held[0].shape, held[1].shape), held[2].shape)
    result = b.op("SELECT_V2", held, shape, held[1].dtype)
    b.put(node.output, _full(b, result, node.output, order), order)


def _cast(b: Builder, node: Node) -> None:
    x, target = node.input(0), node.output.dtype
    held = b.get(x, x.native)
    if x.dtype != target and x.dtype == "float32" and target in UNSIGNED:
        raise UnsupportedError(
            Code.DTYPE, f"a cast of floats to {target}, which kernels do in ways that differ"
        )
    b.put(node.output, b.cast(held, target), x.native)


def _same(b: Builder, node: Node) -> None:
    x = node.input(0)
    if x.constant is not None:
        node.output.constant = x.constant
    else:
        node.output.forms = dict(x.forms)
        node.output.flattened, node.output.integers = x.flattened, x.integers


def _dropout(b: Builder, node: Node) -> None:
    """At inference, and where nothing is dropped, it is the identity, and its mask is true everywhere."""
    trains = node.opset >= 12 and node.optional(2) is not None and bool(node.constant(2))
    if trains and (node.optional(1) is None or float(node.constant(1)) != 0):
        raise UnsupportedError(Code.ATTRIBUTE, "dropout while training")
    _same(b, node)
    mask = node.outputs[1] if len(node.outputs) > 1 else None
    if mask is not None:
        mask.constant = np.ones(mask.shape, bool)


def _bit_cast(b: Builder, node: Node) -> None:
    x, kinds = node.input(0), {"float32", "int32"}
    if {x.dtype, node.output.dtype} != kinds:
        raise UnsupportedError(Code.DTYPE, f"the bits of {x.dtype} as {node.output.dtype}")
    held = b.get(x, x.native)
    b.put(node.output, b.op("BITCAST", [held], held.shape, node.output.dtype), x.native)


def _not_equal(b: Builder, x: Held) -> Held:
    return b.binary("NOT_EQUAL", x, x, "bool")


def _xor(b: Builder, node: Node) -> None:
    binary("NOT_EQUAL", b, node)


def _compare(name: str, b: Builder, node: Node) -> None:
    x, y = node.input(0), node.input(1)
    order, held = aligned(b, [x, y], node.output.rank)
    result = b.binary(name, held[0], held[1], "bool")
    b.put(node.output, _full(b, result, node.output, order), order)


def _is_inf(b: Builder, node: Node) -> None:
    x = node.input(0)
    held = b.get(x, x.native)
    tests = []
    if node.attr("detect_positive", 1):
        tests.append(b.binary("EQUAL", held, float("inf"), "bool"))
    if node.attr("detect_negative", 1):
        tests.append(b.binary("EQUAL", held, float("-inf"), "bool"))
    if not tests:
        raise UnsupportedError(Code.ATTRIBUTE, "neither infinity is asked for")
    b.put(node.output, reduce(lambda left, right: b.binary("LOGICAL_OR", left, right), tests), x.native)


def _reciprocal(b: Builder, x: Held) -> Held:
    return b.op("DIV", [b.constant(1.0, x.dtype), x], x.shape)


def _sign(b: Builder, x: Held) -> Held:
    return b.unary("SIGN", x)


def _tan(b: Builder, x: Held) -> Held:
    return b.binary("DIV", b.unary("SIN", x), b.unary("COS", x))


def _half_difference(sign: str, b: Builder, x: Held) -> Held:
    """sinh or cosh: half of e^x minus or plus e^-x."""
    up = b.unary("EXP", x)
    down = b.unary("EXP", b.unary("NEG", x))
    return b.binary("MUL", b.binary(sign, up, down), 0.5)


def _atan2(b: Builder, y: Held, x: Held) -> Held:
    return b.op("ATAN2", [y, x], x.shape)


def _ones(b: Builder, x: Held) -> Held:
    return b.unary("EXP", b.unary("ZEROS_LIKE", x))


def _other_leg(b: Builder, x: Held) -> Held:
    """sqrt(1 - x^2), as sqrt((1 - x) (1 + x)): exact near one."""
    one = b.constant(1.0, "float32")
    return b.unary("SQRT", b.binary("MUL", b.op("SUB", [one, x], x.shape), b.binary("ADD", x, one)))


def _asinh(b: Builder, x: Held) -> Held:
    """sign(x) log(|x| + sqrt(x^2 + 1)); the absolute error near zero is that of float32 at one."""
    size = b.unary("ABS", x)
    root = b.unary("SQRT", b.binary("ADD", b.unary("SQUARE", x), 1.0))
    return b.binary("MUL", b.unary("SIGN", x), b.unary("LOG", b.binary("ADD", size, root)))


def _acosh(b: Builder, x: Held) -> Held:
    root = b.unary("SQRT", b.binary("MUL", b.binary("SUB", x, 1.0), b.binary("ADD", x, 1.0)))
    return b.unary("LOG", b.binary("ADD", x, root))


def _atanh(b: Builder, x: Held) -> Held:
    """Half of log((1 + x) / (1 - x))."""
    below = b.op("SUB", [b.constant(1.0, "float32"), x], x.shape)
    return b.binary("MUL", b.unary("LOG", b.binary("DIV", b.binary("ADD", x, 1.0), below)), 0.5)


ELEMENTWISE: dict[str, Handler] = {
    "Abs": partial(unary, "ABS"),
    "Acos": partial(composed, lambda b, x: _atan2(b, _other_leg(b, x), x)),
    "Acosh": partial(composed, _acosh),
    "Add": _add,
    "And": partial(binary, "LOGICAL_AND"),
    "Asin": partial(composed, lambda b, x: _atan2(b, x, _other_leg(b, x))),
    "Asinh": partial(composed, _asinh),
    "Atan": partial(composed, lambda b, x: _atan2(b, x, _ones(b, x))),
    "Atanh": partial(composed, _atanh),
    "BitCast": _bit_cast,
    "Cast": _cast,
    "CastLike": _cast,
    "Ceil": partial(unary, "CEIL"),
    "Cos": partial(unary, "COS"),
    "Cosh": partial(composed, partial(_half_difference, "ADD")),
    "Div": _divide,
    "Dropout": _dropout,
    "Equal": partial(_compare, "EQUAL"),
    "Exp": partial(unary, "EXP"),
    "Floor": partial(unary, "FLOOR"),
    "Greater": partial(_compare, "GREATER"),
    "GreaterOrEqual": partial(_compare, "GREATER_EQUAL"),
    "Identity": _same,
    "IsInf": _is_inf,
    "IsNaN": partial(composed, _not_equal),
    "Less": partial(_compare, "LESS"),
    "LessOrEqual": partial(_compare, "LESS_EQUAL"),
    "Log": partial(unary, "LOG"),
    "Max": partial(_variadic, "MAXIMUM"),
    "Mean": _mean,
    "Min": partial(_variadic, "MINIMUM"),
    "Mod": _modulo,
    "Mul": partial(binary, "MUL"),
    "Neg": partial(unary, "NEG"),
    "Not": partial(unary, "LOGICAL_NOT"),
    "Or": partial(binary, "LOGICAL_OR"),
    "Pow": _power,
    "Reciprocal": partial(composed, _reciprocal),
    "Round": partial(unary, "ROUND"),
    "Sign": partial(composed, _sign),
    "Sin": partial(unary, "SIN"),
    "Sinh": partial(composed, partial(_half_difference, "SUB")),
    "Sqrt": partial(unary, "SQRT"),
    "Sub": partial(binary, "SUB"),
    "Sum": partial(_variadic, "ADD"),
    "Tan": partial(composed, _tan),
    "Where": _where,
    "Xor": _xor,
}
