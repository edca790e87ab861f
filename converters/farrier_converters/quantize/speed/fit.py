"""Fit a graph to the integer kernels of ONNX Runtime on x86: which operators get integers, in which shapes."""

from __future__ import annotations

from ...graph.edit import Graph, standard
from ..placement import place
from .fastest import float_where_faster
from .widen import widen


def fit(graph: Graph, *, exclude: frozenset[str], stem: bool) -> tuple[Graph, frozenset[str]]:
    """Return the graph with channels widened for its integer kernels, and the operators faster in float.

    They are named by their first outputs. The graph computes the same as before.
    """
    plan = place(graph, exclude=exclude, stem=stem)
    slower = float_where_faster(graph, plan)
    integer = {n.output[0] for n in graph.nodes if id(n) in plan.integer and standard(n, "Conv")}
    widen(graph, frozenset(integer - slower))
    return Graph(graph.build()), slower
