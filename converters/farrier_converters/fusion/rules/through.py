"""Transposes move through elementwise operators until they meet and cancel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ...graph.edit import attribute, set_attribute, standard
from ..record import Rewrite, Rule
from ..site import Site, copy

UNARY = (
    "Relu", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Elu", "Selu", "Softplus", "Softsign",
    "Gelu", "Mish", "Clip", "Abs", "Neg", "Exp", "Log", "Sqrt", "Erf", "Reciprocal", "Floor", "Ceil", "Round", "Cast",
    "Sin", "Cos",
)  # fmt: skip
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
MAX_STEPS = 16  # operators between two Transposes


def cancel(site: Site, second: onnx.NodeProto) -> Rewrite | None:
    """Join two Transposes with only elementwise operators of one activation between them."""
    between: list[onnx.NodeProto] = []
    name = second.input[0]
    while len(between) <= MAX_STEPS:
        node = site.graph.producer.get(name)
        if node is None or site.graph.only_reader(name) is not (between[0] if between else second):
            return None
        if standard(node, "Transpose"):
            return _joined(site, node, between, second) if between else None
        variable = _variable(site, node)
        if variable is None:
            return None
        between.insert(0, node)
        name = variable
    return None


def _variable(site: Site, node: onnx.NodeProto) -> str | None:
    """Return the one activation that an elementwise operator reads, None for any other operator."""
    if standard(node, *UNARY):
        return node.input[0]
    names = [n for n in node.input if n not in site.graph.initializers]
    fits = standard(node, *BINARY) and len(node.input) == 2 and len(names) == 1
    same = fits and site.rank(names[0]) == site.rank(node.output[0]) is not None
    return names[0] if same else None


def _joined(
    site: Site, first: onnx.NodeProto, between: Sequence[onnx.NodeProto], second: onnx.NodeProto
) -> Rewrite | None:
    orders = [site.order(node) for node in (first, second)]
    if not orders[0] or not orders[1] or len(orders[0]) != len(orders[1]):
        return None
    if any(site.shared(name) for node in between for name in node.input):
        return None
    back = list(np.argsort(orders[0]))
    made = [copy(node) for node in between]
    made[0].input[:] = [first.input[0] if n == first.output[0] else n for n in made[0].input]
    for node in made:
        _turn_constants(site, node, back)
    order = [orders[0][axis] for axis in orders[1]]
    if order == sorted(order):
        made[-1].output[0] = second.output[0]
        return Rewrite((first, *between, second), tuple(made))
    last = copy(second)
    set_attribute(last, "perm", order)
    return Rewrite((first, *between, second), (*made, last))


def _turn_constants(site: Site, node: onnx.NodeProto, order: Sequence[int]) -> None:
    """Bring the constants of a copied binary operator into another order of axes."""
    if not standard(node, *BINARY):
        return
    for position, name in enumerate(node.input):
        value = site.constant(name)
        if value is not None and value.size > 1:
            whole = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
            node.input[position] = site.graph.add_constant(f"{name}_turned", whole.transpose(order))


def sink(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Transpose the result of an operator once instead of all its operands, each of them transposed for it alone."""
    names = [name for name in dict.fromkeys(node.input) if name not in site.graph.initializers]
    makers = [site.maker(name, "Transpose") for name in names]
    found = [maker for maker in makers if maker is not None]
    orders = [site.order(maker) for maker in found]
    if len(found) < 2 or len(found) != len(makers) or not orders[0] or any(o != orders[0] for o in orders):
        return None
    if any(site.graph.only_reader(name) is not node for name in names) or len(node.output) != 1:
        return None
    rank = len(orders[0])
    if any(site.rank(maker.input[0]) != rank for maker in found):
        return None
    made = copy(node)
    sources = {maker.output[0]: maker.input[0] for maker in found}
    made.input[:] = [sources.get(name, name) for name in node.input]
    if standard(node, "Concat"):
        set_attribute(made, "axis", int(orders[0][attribute(node, "axis") % rank]))
    constants = [n for n in node.input if n in site.graph.initializers]
    if (constants and standard(node, "Concat")) or any(site.shared(name) for name in constants):
        return None
    _turn_constants(site, made, list(np.argsort(orders[0])))
    made.output[0] = site.graph.fresh(f"{node.output[0]}_unturned")
    last = site.node("Transpose", [made.output[0]], node.output, perm=orders[0])
    return Rewrite((*found, node), (made, last))


THROUGH = (
    Rule("transposes around elementwise operators", ("Transpose",), cancel, exact=True),
    Rule("one transpose behind instead of several before", ("Concat", *BINARY), sink, exact=True),
)
