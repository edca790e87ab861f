"""Activation functions that were written as formulas become one operator, or the two that engines know."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...graph.bounds import bounds
from ...graph.edit import attribute, standard
from ..formula import Formula, Found, around
from ..polynomial import alike, polynomial
from ..record import Rewrite, Rule
from ..site import Site

HALF = {(1, 0): 0.5, (1, 1): 0.5}  # x/2 + x f/2
GELU_ERF = Formula({(1,): math.sqrt(0.5)}, HALF)
GELU_TANH = Formula({(1,): math.sqrt(2 / math.pi), (3,): math.sqrt(2 / math.pi) * 0.044715}, HALF)
SHIFTED, HALVED = {(1,): 1.0, (0,): 3.0}, {(1,): 1 / 6, (0,): 0.5}
HARD_SWISH = (  # the bounds of Clip with the formula around it
    (0.0, 6.0, Formula(SHIFTED, {(1, 1): 1 / 6})),
    (0.0, 1.0, Formula(HALVED, {(1, 1): 1.0})),
)
HARD_SIGMOID = (
    (0.0, 6.0, Formula(SHIFTED, {(0, 1): 1 / 6})),
    (0.0, 1.0, Formula(HALVED, {(0, 1): 1.0})),
)


def gelu(site: Site, anchor: onnx.NodeProto) -> Rewrite | None:
    """Write GELU, exact or with tanh, as the operator of that name (operator set 20)."""
    exact = standard(anchor, "Erf")
    found = around(site, anchor, GELU_ERF if exact else GELU_TANH) if site.newest >= 20 else None
    if found is None:
        return None
    made = site.node(
        "Gelu", [found.variable], found.root.output, **({} if exact else {"approximate": "tanh"})
    )
    return Rewrite(found.nodes, (made,))


def hard_swish(site: Site, clip: onnx.NodeProto) -> Rewrite | None:
    """Write x * clip(x + 3, 0, 6) / 6 as HardSwish (operator set 14), before that as x * HardSigmoid(x)."""
    found = _around_clip(site, clip, HARD_SWISH)
    if found is None:
        return None
    result = found.root.output
    if site.newest >= 14:
        return Rewrite(found.nodes, (site.node("HardSwish", [found.variable], result),))
    gate = site.graph.fresh(f"{result[0]}_gate")
    made = (_hard_sigmoid(site, found.variable, gate), site.node("Mul", [found.variable, gate], result))
    return Rewrite(found.nodes, made)


def hard_gate(site: Site, gate: onnx.NodeProto) -> Rewrite | None:
    """Write x * HardSigmoid(x) as HardSwish (operator set 14): engines that know it compute it at once."""
    product = site.reader(gate.output[0], "Mul") if site.newest >= 14 and site.floats(gate.input[0]) else None
    numbers = attribute(gate, "alpha", 0.2), attribute(gate, "beta", 0.5)
    if (
        product is None
        or gate.input[0] not in product.input
        or not np.allclose(numbers, (1 / 6, 0.5), rtol=1e-5)
    ):
        return None
    return Rewrite((gate, product), (site.node("HardSwish", gate.input, product.output),))


def hard_sigmoid(site: Site, clip: onnx.NodeProto) -> Rewrite | None:
    """Write clip(x + 3, 0, 6) / 6 and clip(x / 6 + 1 / 2, 0, 1) as HardSigmoid."""
    found = _around_clip(site, clip, HARD_SIGMOID)
    if found is None:
        return None
    return Rewrite(found.nodes, (_hard_sigmoid(site, found.variable, found.root.output[0]),))


def _around_clip(
    site: Site, clip: onnx.NodeProto, shapes: tuple[tuple[float, float, Formula], ...]
) -> Found | None:
    ends = bounds(site.graph, clip)
    matches = (around(site, clip, formula) for low, high, formula in shapes if ends == (low, high))
    return next((found for found in matches if found is not None), None)


def _hard_sigmoid(site: Site, source: str, result: str) -> onnx.NodeProto:
    return site.node("HardSigmoid", [source], [result], alpha=1 / 6, beta=0.5)


def sigmoid(site: Site, exp: onnx.NodeProto) -> Rewrite | None:
    """Write 1 / (1 + exp(-x)) as Sigmoid(x)."""
    plus = site.reader(exp.output[0], "Add")
    end = None if plus is None else site.reader(plus.output[0], "Div", "Reciprocal")
    if plus is None or end is None:
        return None
    if not alike(polynomial(site, plus.output[0], (exp.output[0],)), {(1,): 1.0, (0,): 1.0}):
        return None
    if standard(end, "Div") and (end.input[1] != plus.output[0] or site.scalar(end.input[0]) != 1.0):
        return None
    negated = site.maker(exp.input[0], "Neg", "Mul", "Sub")
    source = (
        None
        if negated is None
        else next((n for n in negated.input if n not in site.graph.initializers), None)
    )
    if negated is None or source is None or not site.floats(source):
        return None
    nodes = (negated, exp, plus, end)
    minus = alike(polynomial(site, exp.input[0], (source,)), {(1,): -1.0})
    if not minus or not site.closed(nodes, [end.output[0]]):
        return None
    return Rewrite(nodes, (site.node("Sigmoid", [source], end.output),))


def limits(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Put two limits in a row into one: Relu, Clip, and Max or Min with a number."""
    outer = _limits(site, second)
    if outer is None:
        return None
    source, low, high = outer
    first = site.graph.producer.get(source)
    inner = None if first is None else _limits(site, first)
    if first is not None and inner is not None and site.graph.only_reader(source) is second:
        source, inner_low, inner_high = inner
        low, high = max(low, min(inner_low, high)), min(high, max(inner_high, low))
        return Rewrite((first, second), (_limiter(site, source, low, high, second.output[0]),))
    if standard(second, "Relu") or (standard(second, "Clip") and (low, high) != (0.0, math.inf)):
        return None  # as short as it gets
    return Rewrite((second,), (_limiter(site, source, low, high, second.output[0]),))


def _limits(site: Site, node: onnx.NodeProto) -> tuple[str, float, float] | None:
    """Return (tensor, least, most) of a node that does nothing but limit float32 values."""
    if not standard(node, "Relu", "Clip", "Max", "Min") or not site.floats(node.output[0]) or site.opset < 7:
        return None
    ends = bounds(site.graph, node)
    if ends is not None:
        low, high = (-math.inf if ends[0] is None else ends[0]), (math.inf if ends[1] is None else ends[1])
        return (node.input[0], low, high) if low <= high else None
    found = site.with_scalar(node) if standard(node, "Max", "Min") else None
    if found is None or any(standard(n, "QuantizeLinear") for n in site.graph.nodes):
        return None  # before a quantizer of FP8 only Max and Min are safe: see weights/short.py
    return (found[0], found[1], math.inf) if node.op_type == "Max" else (found[0], -math.inf, found[1])


def _limiter(site: Site, source: str, low: float, high: float, result: str) -> onnx.NodeProto:
    if (low, high) == (0.0, math.inf):
        return site.node("Relu", [source], [result])
    if site.opset < 11:
        given = {name: value for name, value in (("min", low), ("max", high)) if math.isfinite(value)}
        return site.node("Clip", [source], [result], **given)
    ends = [
        site.graph.add_constant(f"{result}_{name}", np.array(value, np.float32))
        if math.isfinite(value)
        else ""
        for name, value in (("min", low), ("max", high))
    ]
    return site.node("Clip", [source, *(ends if ends[1] else ends[:1])], [result])


def leaky(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Write max(x, a x) with a between 0 and 1 as LeakyRelu."""
    if len(node.input) != 2 or site.opset < 7:
        return None
    for position in (0, 1):
        product = site.maker(node.input[position], "Mul")
        found = None if product is None else site.with_scalar(product)
        if product is None or found is None or found[0] != node.input[1 - position] or not 0 < found[1] < 1:
            continue
        if site.floats(found[0]) and site.closed((product, node), [node.output[0]]):
            made = site.node("LeakyRelu", [found[0]], node.output, alpha=found[1])
            return Rewrite((product, node), (made,))
    return None


GELU = Rule("gelu from its formula", ("Erf", "Tanh"), gelu)
HARD_SWISHES = (
    Rule("hard swish from its formula", ("Clip",), hard_swish),
    Rule("hard swish from its gate", ("HardSigmoid",), hard_gate),
)
ACTIVATION_RULES = (
    Rule("limits in a row", ("Relu", "Clip", "Max", "Min"), limits, exact=True),
    Rule("leaky relu from its formula", ("Max",), leaky),
    GELU,
    *HARD_SWISHES,
    Rule("hard sigmoid from its formula", ("Clip",), hard_sigmoid),
    Rule("sigmoid from its formula", ("Exp",), sigmoid),
)
