"""Find a formula around one operator: what it is applied to, and where the whole of it ends."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from .polynomial import Polynomial, alike, polynomial
from .site import Site

STEPS = 6  # operators from the anchor to the formula's end, and to its variable
ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Pow", "Neg", "Reciprocal")


@dataclass(frozen=True)
class Formula:
    """`inner` is the anchor's argument in (x), `outer` the result in (x, anchor)."""

    inner: Polynomial
    outer: Polynomial


@dataclass(frozen=True)
class Found:
    """A formula in a graph: its variable, its last node, and every node of it, the anchor too."""

    variable: str
    root: onnx.NodeProto
    nodes: tuple[onnx.NodeProto, ...]


def around(site: Site, anchor: onnx.NodeProto, formula: Formula) -> Found | None:
    """Return the formula whose inner function this node is, if nothing else reads what is inside of it."""
    for variable in _variables(site, anchor.input[0]):
        if not site.floats(variable) or not alike(
            polynomial(site, anchor.input[0], (variable,)), formula.inner
        ):
            continue
        for root in _roots(site, anchor):
            if alike(polynomial(site, root.output[0], (variable, anchor.output[0])), formula.outer):
                nodes = _between(site, root.output[0], variable)
                return Found(variable, root, nodes) if site.closed(nodes, [root.output[0]]) else None
    return None


def _variables(site: Site, name: str) -> list[str]:
    """Return the tensors upstream through arithmetic, the nearest first: any of them may be the variable."""
    found, waiting = [name], [(name, STEPS)]
    while waiting:
        current, steps = waiting.pop(0)
        node = site.maker(current, *ARITHMETIC)
        for part in node.input if node is not None and steps else ():
            if part not in found and part not in site.graph.initializers:
                found.append(part)
                waiting.append((part, steps - 1))
    return found


def _roots(site: Site, anchor: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Return the anchor and what follows it through arithmetic, as long as one node alone reads each result."""
    found = [anchor]
    while len(found) <= STEPS:
        reader = site.reader(found[-1].output[0], *ARITHMETIC)
        if reader is None:
            break
        found.append(reader)
    return found


def _between(site: Site, result: str, variable: str) -> tuple[onnx.NodeProto, ...]:
    found: dict[int, onnx.NodeProto] = {}
    waiting = [result]
    while waiting:
        node = site.graph.producer.get(waiting.pop())
        if node is None or id(node) in found:
            continue
        found[id(node)] = node
        waiting += [name for name in node.input if name != variable and name not in site.graph.initializers]
    order = [n for n in site.graph.nodes if id(n) in found]
    return tuple(order)
