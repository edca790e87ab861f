"""One node of a quantized graph as operators on 8-bit integers, with exactly the scales that the graph states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..builder import Builder, Value
from ..node import Handler, Node
from ..operands import number
from ..quanta import Quanta, exactly
from .clip import lower_clip, lower_hard_sigmoid
from .conversions import integers
from .kernels import CLIPS, JOINED, KERNELS, LINEAR, OPERANDS, slow
from .linear import lower_linear, obstacle
from .pool import lower_average

REAL = "float32"
OWN: dict[str, Callable[[Builder, Node, Value], None]] = {
    **dict.fromkeys(LINEAR, lower_linear),
    **dict.fromkeys(CLIPS, lower_clip),
    "AveragePool": lower_average,
    "HardSigmoid": lower_hard_sigmoid,
}


def why_float(b: Builder, node: Node) -> str | None:
    """Return why a node has to compute in float, or None."""
    if node.op not in KERNELS:
        return f"no integer kernel for {node.op}"
    if slow(node) and not b.integers_only:
        return f"the integer kernel for {node.op} is slower than float"
    for value in node.outputs:
        if value is not None and value.dtype == REAL and value.quanta is None and value.readers:
            return f"its result {value.name} is read in float"
    for value in _data(node):
        if value is not None and value.dtype == REAL and _given(node, value) is None:
            return f"its input {value.name} is computed in float"
    if node.op in LINEAR:
        return obstacle(node)
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
    if why_float(b, node) is not None:
        return False
    outputs = tuple(
        Value(v.name, v.known_shape, "int8", v.readers, quanta=v.quanta)
        if v is not None and v.dtype == REAL
        else v
        for v in node.outputs
    )
    first = next((v for v in outputs if v is not None), None)
    b.target = None if first is None else first.quanta
    if node.op in OWN and first is not None:
        OWN[node.op](b, node, first)
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
