"""One node of a quantized graph as operators on 8-bit integers, with exactly the scales that the graph states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..builder import Builder, Value
from ..node import Handler, Node
from ..operands import number
from ..ops.activation import FUSED
from ..quanta import HIGHEST, LOWEST, Quanta, exactly
from . import linear
from .conversions import integers
from .kernels import CLIPS, JOINED, KERNELS, LINEAR, OPERANDS

REAL = "float32"


def why_float(node: Node) -> str | None:
    """Return why a node has to compute in float, or None."""
    if node.op not in KERNELS:
        return f"no integer kernel for {node.op}"
    for value in node.outputs:
        if value is not None and value.dtype == REAL and value.quanta is None and value.readers:
            return f"its result {value.name} is read in float"
    for value in _data(node):
        if value is not None and value.dtype == REAL and _given(node, value) is None:
            return f"its input {value.name} is computed in float"
    if node.op in LINEAR:
        return linear.obstacle(node)
    return KERNELS[node.op](node)


def _data(node: Node) -> tuple[Value | None, ...]:
    """Return the inputs that are tensors of activations, or stand beside them; the others say what to do."""
    return node.inputs if node.op in OPERANDS else node.inputs[:1]


def _given(node: Node, value: Value) -> Quanta | None:
    """Return the scale in which an operand comes; a constant that is one number gets a scale that holds it exactly."""
    if value.quanta is not None and value.quanta.single:
        return value.quanta
    if value.constant is None or node.op not in OPERANDS:
        return None
    only = number(value)
    return None if only is None or not np.isfinite(only) else exactly(only)


def lower(b: Builder, node: Node, handlers: dict[str, Handler]) -> bool:
    """Append a node's operators where it can compute in integers; says whether it could."""
    if not any(value is not None and value.quanta is not None for value in (*node.inputs, *node.outputs)):
        return False
    if why_float(node) is not None:
        return False
    outputs = tuple(
        Value(v.name, v.known_shape, "int8", v.readers, quanta=v.quanta)
        if v is not None and v.dtype == REAL
        else v
        for v in node.outputs
    )
    first = next((v for v in outputs if v is not None), None)
    b.target = None if first is None else first.quanta
    if node.op in LINEAR and first is not None:
        linear.lower_linear(b, node, first)
    elif node.op in CLIPS and first is not None:
        _clip(b, node, first)
    else:
        data = tuple(_operand(b, node, value, b.target) for value in _data(node))
        handlers[node.op](b, replace(node, inputs=(*data, *node.inputs[len(data) :]), outputs=outputs))
    b.target = None
    for real, integer in zip(node.outputs, outputs, strict=True):
        if real is not None and integer is not None and real is not integer:
            real.integers = integer
    return True


def _operand(b: Builder, node: Node, value: Value | None, target: Quanta | None) -> Value | None:
    if value is None or value.dtype != REAL:
        return value
    scale = target if node.op in JOINED else _given(node, value)
    return value if scale is None else integers(b, value, scale)


def _clip(b: Builder, node: Node, output: Value) -> None:
    """Clip integers where they lie: rounding to a scale and then clipping is the same as the other way around.

    A bound that the scale itself does not go beyond is no operator, and one that a kernel knows is fused into it.
    """
    x, quanta = node.input(0), output.scale
    given = integers(b, x, x.scale)
    held = b.requantize(b.get(given, given.native), quanta)
    low, high = _bounds(node)
    if not _cuts(quanta, low, high):
        b.put(output, held, given.native)
        return
    alone = x.readers == 1 and len(given.forms) == 1 and b.untouched(held)
    kind = FUSED.get((low, high)) or FUSED.get(
        (low, None if high is None or not _cuts(quanta, None, high) else high)
    )
    if not (kind and alone and b.activate(held, kind)):
        if kind:
            held = b.unary(kind, held)
        else:
            held = held if low is None else b.binary("MAXIMUM", held, low)
            held = held if high is None else b.binary("MINIMUM", held, high)
    b.put(output, held, given.native)


def _bounds(node: Node) -> tuple[float | None, float | None]:
    if node.op == "Relu":
        return 0.0, None
    low, high = (node.scalar(name, position) for name, position in (("min", 1), ("max", 2)))
    limits = np.finfo(np.float32)
    return (
        None if low is None or low <= limits.min else low,
        None if high is None or high >= limits.max else high,
    )


def _cuts(quanta: Quanta, low: float | None, high: float | None) -> bool:
    """Say whether bounds leave out integers of a scale."""
    below = low is not None and int(quanta.quantize(low)) > LOWEST
    return below or (high is not None and int(quanta.quantize(high)) < HIGHEST)
