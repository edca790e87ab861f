"""x g + (b - m g) is (x - m) g + b, where x - m is computed anyway: how Keras spells a layer norm out.

What comes of it is shorter, and the form in which norms are recognised.
"""

from __future__ import annotations

import onnx

from ...graph.edit import standard
from ..record import Rewrite, Rule
from ..site import Site


def find(site: Site, add: onnx.NodeProto) -> Rewrite | None:
    """Find the sum, and the difference from the mean that the variance was computed from."""
    for position in (0, 1):
        scaled = site.maker(add.input[position], "Mul")
        minus = site.maker(add.input[1 - position], "Sub")
        offset = None if minus is None else site.maker(minus.input[1], "Mul")
        if scaled is not None and minus is not None and offset is not None:
            return _regrouped(site, add, scaled, minus, offset)
    return None


def _regrouped(
    site: Site, add: onnx.NodeProto, scaled: onnx.NodeProto, minus: onnx.NodeProto, offset: onnx.NodeProto
) -> Rewrite | None:
    shared = set(scaled.input) & set(offset.input)
    nodes = (scaled, offset, minus, add)
    if len(shared) != 1 or not site.closed(nodes, [add.output[0]]):
        return None
    (factor,) = shared
    source, mean = (next((n for n in node.input if n != factor), factor) for node in (scaled, offset))
    readers = site.graph.readers.get(source, [])
    centred = next((n for n in readers if standard(n, "Sub") and list(n.input) == [source, mean]), None)
    if centred is None or site.maker(mean, "ReduceMean") is None:
        return None
    parts, before = _factors(site, factor, nodes)
    made = []
    name = centred.output[0]
    for part in parts:
        made.append(site.node("Mul", [name, part], [site.graph.fresh(f"{add.output[0]}_scaled")]))
        name = made[-1].output[0]
    made.append(site.node("Add", [name, minus.input[0]], add.output))
    return Rewrite((centred, *before, *nodes), (centred, *made))


def _factors(
    site: Site, factor: str, nodes: tuple[onnx.NodeProto, ...]
) -> tuple[list[str], tuple[onnx.NodeProto, ...]]:
    """Return the factor, or the two that it is a product of: the computed one first, a constant last."""
    product = site.maker(factor, "Mul")
    constants = [n for n in product.input if n in site.graph.initializers] if product is not None else []
    if product is None or len(constants) != 1 or not site.closed((product, *nodes), [nodes[-1].output[0]]):
        return [factor], ()
    return [next(n for n in product.input if n != constants[0]), constants[0]], (product,)


REGROUP = Rule("difference from the mean taken off before", ("Add",), find)
