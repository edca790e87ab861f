"""A Reshape to a shape that the graph computes becomes one to a constant shape."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import set_attribute, standard
from ...graph.partial import RULES, Evaluator, Unknown
from ..record import Rewrite, Rule
from ..site import Site, copy


def find(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Write the shape down where at most one size of it is free."""
    if site.opset < 5 or node.input[1] in site.graph.initializers:
        return None
    sizes = Evaluator(site.graph, site.types).sizes(node.input[1])
    if sizes is None or not sizes.vector:
        return None
    source = node.input[0]
    target = [0 if size == Unknown(source, axis) else size for axis, size in enumerate(sizes.elements)]
    free = [axis for axis, size in enumerate(target) if isinstance(size, Unknown) or size == -1]
    if len(free) > 1 or any(size == 0 for size in sizes.elements):
        return None
    known = np.array([-1 if axis in free else size for axis, size in enumerate(target)], np.int64)
    made = copy(node)
    if 0 in known:  # the way to say "as it was", which the attribute would turn off
        set_attribute(made, "allowzero", 0)
    made.input[1] = site.graph.add_constant(f"{node.output[0]}_shape", known)
    way = _way(site, node)
    gone = {id(n) for n in site.private(way, node)}
    return Rewrite((*way, node), (*(n for n in way if id(n) not in gone), made))


def _way(site: Site, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the nodes that compute the shape, in the graph's order."""
    found: dict[int, onnx.NodeProto] = {}
    names = [node.input[1]]
    while names:
        maker = site.maker(names.pop(), *RULES)
        if maker is None or id(maker) in found:
            continue
        found[id(maker)] = maker
        names += [] if standard(maker, "Shape") else list(maker.input)
    return [n for n in site.graph.nodes if id(n) in found]


RESHAPE = Rule("reshape to a computed shape", ("Reshape",), find, exact=True)
