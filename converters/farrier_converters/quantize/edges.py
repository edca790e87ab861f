"""What keeps 8 bits where the rest has fewer."""

from __future__ import annotations

import onnx

from ..graph.edit import Graph, standard
from . import rules
from .placement import Placement


def wide(graph: Graph, plan: Placement, *, ends: bool) -> frozenset[str]:
    """Return the tensors and weights that keep 8 bits: what is never multiplied, and `ends` the first and last.

    Few bits make multiplications cheap. A tensor that no operator with weights reads, nor any that shares its scale
    (a summand of a residual block, say), would lose by them and win nothing.
    """
    linear = [n for n in graph.nodes if id(n) in plan.integer and standard(n, *rules.LINEAR)]
    multiplied = {plan.root(name) for node in linear for name in node.input[:2]}
    rest = frozenset(n for n in (*plan.points, *plan.constants.values()) if plan.root(n) not in multiplied)
    return rest | edges(graph, plan) if ends else rest


def edges(graph: Graph, plan: Placement) -> frozenset[str]:
    """Return inputs and weights of integer operators with no other one before them, or none after.

    The choice is that of Esser et al., "Learned step size quantization", arXiv 1902.08153, and of most since.
    """
    linear = [n for n in graph.nodes if id(n) in plan.integer and standard(n, *rules.LINEAR)]
    ends = _without_kin(graph, linear, ancestors=True) + _without_kin(graph, linear, ancestors=False)
    return frozenset(name for node in ends for name in node.input[:2])


def _without_kin(graph: Graph, linear: list[onnx.NodeProto], *, ancestors: bool) -> list[onnx.NodeProto]:
    """Return the operators from which no other one is reached, backwards or forwards."""
    wanted = {id(node) for node in linear}

    def next_to(node: onnx.NodeProto) -> list[onnx.NodeProto]:
        if ancestors:
            return [graph.producer[name] for name in node.input if name in graph.producer]
        return [reader for name in node.output for reader in graph.readers.get(name, ())]

    def alone(node: onnx.NodeProto) -> bool:
        seen: set[int] = set()
        stack = next_to(node)
        while stack:
            kin = stack.pop()
            if id(kin) in wanted:
                return False
            if id(kin) not in seen:
                seen.add(id(kin))
                stack.extend(next_to(kin))
        return True

    return [node for node in linear if alone(node)]
