"""Activation functions: fused into what comes before where TFLite can, composed where it has none of its own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held
from ..errors import Code, UnsupportedError
from ..node import Handler, Node, axis_of
from ..operands import spread

Composition = Callable[[Builder, Held], Held]
FUSED = {(0.0, None): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}


def _apply(make: Composition, b: Builder, node: Node) -> None:
    x = node.input(0)
    b.put(node.output, make(b, b.get(x, x.native)), x.native)


def _with(make: Callable[[Builder, Held, Node], Held], b: Builder, node: Node) -> None:
    _apply(lambda builder, x: make(builder, x, node), b, node)


def _between(b: Builder, node: Node, low: float | None, high: float | None) -> None:
    """Keep values between two bounds; where TFLite has a function of its own, it is fused if it can be."""
    x = node.input(0)
    kind = FUSED.get((low, high))
    held = b.get(x, x.native)
    if kind and x.dtype == "float32":
        if x.readers == 1 and len(x.forms) == 1 and b.untouched(held) and b.activate(held, kind):
            b.put(node.output, held, x.native)
            return
        b.put(node.output, b.unary(kind, held), x.native)
        return
    if low is not None:
        held = b.binary("MAXIMUM", held, low)
    if high is not None:
        held = b.binary("MINIMUM", held, high)
    b.put(node.output, held, x.native)


def _relu(b: Builder, node: Node) -> None:
    _between(b, node, 0.0, None)


def _clip(b: Builder, node: Node) -> None:
    if any(v is not None and v.constant is None for v in node.inputs[1:3]):
        _clip_computed(b, node)
        return
    low, high = (node.scalar(name, position) for name, position in (("min", 1), ("max", 2)))
    limits = np.finfo(np.float32)
    low = None if low is None or low <= limits.min else low
    high = None if high is None or high >= limits.max else high
    _between(b, node, low, high)


def _clip_computed(b: Builder, node: Node) -> None:
    x = node.input(0)
    held = b.get(x, x.native)
    for name, bound in zip(("MAXIMUM", "MINIMUM"), (node.optional(1), node.optional(2)), strict=True):
        if bound is not None:
            held = b.binary(name, held, spread(b, bound, x.rank, x.native))
    b.put(node.output, held, x.native)


def _leaky(b: Builder, x: Held, node: Node) -> Held:
    return b.unary("LEAKY_RELU", x, alpha=float(node.attr("alpha", 0.01)))


def _prelu(b: Builder, node: Node) -> None:
    """PRELU broadcasts its slope against the input without its first axis."""
    x, slope = node.input(0), node.input(1)
    held = b.get(x, x.native)
    alpha = spread(b, slope, x.rank, x.native)
    shape = (1,) * (held.rank - alpha.rank) + alpha.shape
    if shape[:1] == (1,) and held.rank in (2, 3, 4) and slope.constant is not None:
        sizes = shape[1:]
        b.put(node.output, b.op("PRELU", [held, b.reshape(alpha, sizes)], held.shape), x.native)
        return
    low = b.binary("MUL", b.binary("MINIMUM", held, 0.0), alpha)
    b.put(node.output, b.binary("ADD", b.unary("RELU", held), low), x.native)


def _elu(b: Builder, x: Held, node: Node) -> Held:
    alpha = float(node.attr("alpha", 1.0))
    return b.unary("ELU", x) if alpha == 1 else _scaled_elu(b, x, alpha, 1.0)


def _scaled_elu(b: Builder, x: Held, alpha: float, gamma: float) -> Held:
    """gamma * x above zero, gamma * alpha * (e^x - 1) below; ELU is used for e^x - 1, which is exact near zero."""
    low = b.binary("MUL", b.unary("ELU", b.binary("MINIMUM", x, 0.0)), alpha * gamma)
    high = b.unary("RELU", x)
    return b.binary("ADD", high if gamma == 1 else b.binary("MUL", high, gamma), low)


def _selu(b: Builder, x: Held, node: Node) -> Held:
    return _scaled_elu(
        b,
        x,
        float(node.attr("alpha", 1.67326319217681884765625)),
        float(node.attr("gamma", 1.05070102214813232421875)),
    )


def _celu(b: Builder, x: Held, node: Node) -> Held:
    alpha = float(node.attr("alpha", 1.0))
    if alpha == 1:
        return b.unary("ELU", x)
    low = b.unary("ELU", b.binary("MINIMUM", b.binary("MUL", x, 1 / alpha), 0.0))
    return b.binary("ADD", b.unary("RELU", x), b.binary("MUL", low, alpha))


def _thresholded(b: Builder, x: Held, node: Node) -> Held:
    above = b.binary("GREATER", x, float(node.attr("alpha", 1.0)), "bool")
    return b.op("SELECT_V2", [above, x, b.constant(0.0, x.dtype)], x.shape, x.dtype)


def _hard_sigmoid(b: Builder, x: Held, node: Node) -> Held:
    return hard_sigmoid(b, x, float(node.attr("alpha", 0.2)), float(node.attr("beta", 0.5)))


def hard_sigmoid(b: Builder, x: Held, alpha: float, beta: float) -> Held:
    """max(0, min(1, alpha * x + beta))."""
    line = b.binary("ADD", b.binary("MUL", x, alpha), beta)
    return b.binary("MINIMUM", b.binary("MAXIMUM", line, 0.0), 1.0)


def softplus(b: Builder, x: Held) -> Held:
    """log(1 + e^x) = max(x, 0) - log(sigmoid(|x|)), which neither overflows nor cancels."""
    return b.binary("SUB", b.unary("RELU", x), b.unary("LOG", b.unary("LOGISTIC", b.unary("ABS", x))))


def _mish(b: Builder, x: Held) -> Held:
    return b.binary("MUL", x, b.unary("TANH", softplus(b, x)))


def softsign(b: Builder, x: Held) -> Held:
    """x / (1 + |x|)."""
    return b.binary("DIV", x, b.binary("ADD", b.unary("ABS", x), 1.0))


def _gelu(b: Builder, x: Held, node: Node) -> Held:
    return b.unary("GELU", x, approximate=int(node.attr("approximate", "none") == "tanh"))


def _swish(b: Builder, x: Held, node: Node) -> Held:
    alpha = float(node.attr("alpha", 1.0))
    inner = x if alpha == 1 else b.binary("MUL", x, alpha)
    return b.binary("MUL", x, b.unary("LOGISTIC", inner))


def _shrink(b: Builder, x: Held, node: Node) -> Held:
    lambd, bias = float(node.attr("lambd", 0.5)), float(node.attr("bias", 0.0))
    zero = b.constant(0.0, x.dtype)
    above = b.binary("GREATER", x, lambd, "bool")
    below = b.binary("LESS", x, -lambd, "bool")
    high = b.op("SELECT_V2", [above, b.binary("SUB", x, bias), zero], x.shape, x.dtype)
    return b.op("SELECT_V2", [below, b.binary("ADD", x, bias), high], x.shape, x.dtype)


def _erf(b: Builder, x: Held) -> Held:
    """GELU(x * sqrt 2) * sqrt 2 / x = 1 + erf(x): x and a number that is never zero are multiplied and divided by."""
    small = b.binary("LESS", b.unary("ABS", x), 0.5, "bool")
    safe = b.op("SELECT_V2", [small, b.constant(1.0, x.dtype), x], x.shape, x.dtype)
    gelu = b.unary("GELU", b.binary("MUL", safe, math.sqrt(2)), approximate=0)
    outer = b.binary("SUB", b.binary("DIV", b.binary("MUL", gelu, math.sqrt(2)), safe), 1.0)
    return b.op("SELECT_V2", [small, _erf_near_zero(b, x), outer], x.shape, x.dtype)


def _erf_near_zero(b: Builder, x: Held) -> Held:
    """The Taylor series of erf up to x^13: below 0.5 it is exact to float32 (the next term is under 1e-9)."""
    square = b.unary("SQUARE", x)
    terms = [2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(7)]
    total = b.binary("ADD", b.binary("MUL", square, terms[-1]), terms[-2])
    for term in terms[-3::-1]:
        total = b.binary("ADD", b.binary("MUL", total, square), term)
    return b.binary("MUL", total, x)


def _softmax(name: str, b: Builder, node: Node) -> None:
    """TFLite's softmax is over the last axis as stored; before operator set 13 it is over all axes from `axis` on."""
    x = node.input(0)
    if x.rank == 0:
        raise UnsupportedError(Code.RANK, "a softmax of a scalar")
    axis = axis_of(int(node.attr("axis", -1 if node.opset >= 13 else 1)), max(x.rank, 1))
    options = {"beta": 1.0} if name == "SOFTMAX" else {}
    if node.opset < 13 and axis != x.rank - 1 and math.prod(x.shape[axis + 1 :]) != 1:
        held = b.get(x)
        flat = b.reshape(held, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))
        b.put(node.output, b.reshape(b.unary(name, flat, **options), x.shape))
        return
    order = next((o for o in x.forms if o[-1] == axis), None)
    if order is None:
        base = x.native if x.native[-1] != axis else layout.identity(x.rank)
        order = (*(a for a in base if a != axis), axis)
    b.put(node.output, b.unary(name, b.get(x, order), **options), order)


def _hardmax(b: Builder, node: Node) -> None:
    """One at the first largest element."""
    x = node.input(0)
    axis = axis_of(int(node.attr("axis", -1 if node.opset >= 13 else 1)), x.rank)
    held: Held = b.get(x)
    shape = x.shape
    if node.opset < 13:
        shape = (math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
        held, axis = b.reshape(held, shape), 1
    kept = [size for a, size in enumerate(shape) if a != axis]
    first = b.op("ARG_MAX", [held, b.constant(np.int32(axis))], kept, "int32", type=2)
    depth, on, off = b.constant(np.int32(shape[axis])), b.constant(1.0, x.dtype), b.constant(0.0, x.dtype)
    hot = b.op("ONE_HOT", [first, depth, on, off], shape, x.dtype, axis=axis)
    b.put(node.output, b.reshape(hot, x.shape))


ACTIVATION: dict[str, Handler] = {
    "Celu": partial(_with, _celu),
    "Clip": _clip,
    "Elu": partial(_with, _elu),
    "Erf": partial(_apply, _erf),
    "Gelu": partial(_with, _gelu),
    "HardSigmoid": partial(_with, _hard_sigmoid),
    "HardSwish": partial(_apply, lambda b, x: b.unary("HARD_SWISH", x)),
    "Hardmax": _hardmax,
    "LeakyRelu": partial(_with, _leaky),
    "LogSoftmax": partial(_softmax, "LOG_SOFTMAX"),
    "Mish": partial(_apply, _mish),
    "PRelu": _prelu,
    "Relu": _relu,
    "Selu": partial(_with, _selu),
    "Shrink": partial(_with, _shrink),
    "Sigmoid": partial(_apply, lambda b, x: b.unary("LOGISTIC", x)),
    "Softmax": partial(_softmax, "SOFTMAX"),
    "Softplus": partial(_apply, softplus),
    "Softsign": partial(_apply, softsign),
    "Swish": partial(_with, _swish),
    "Tanh": partial(_apply, lambda b, x: b.unary("TANH", x)),
    "ThresholdedRelu": partial(_with, _thresholded),
}
