"""The walk over a graph that finds which channels hang together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..graph.edit import Graph, standard
from ..model import Model, subgraphs
from .labels import STAYS, squeezed
from .rules import rule_of
from .shapes import Shape, observe
from .site import LAST, Findings, Kept, Site

QUANTIZED = ("QuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


def walk(model: Model, example: Mapping[str, np.ndarray] | None = None) -> Findings:
    """Return what hangs together in a float model; raises InputError for one in integers, or one that does not run.

    The idea of walking labels of elements through the graph, rather than layers, makes padded shortcuts, shuffles and
    flattened maps plain cases: an operator that moves elements moves their labels. What falls together follows
    Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv 2301.12900.
    """
    integers = next((node for node in model.proto.graph.node if standard(node, *QUANTIZED)), None)
    if integers is not None:
        raise InputError(
            f"{model.name} computes in integers ({integers.op_type}): prune the float model, then quantize"
        )
    graph = Graph(model)
    found = Findings()
    shapes = observe(graph.build(), example)
    for name, tensor in graph.initializers.items():
        shapes.setdefault(name, Shape(tuple(tensor.dims), (False,) * len(tensor.dims)))
    for number, node in enumerate(graph.nodes):
        _visit(found, graph, node, number, shapes)
    for name in (*graph.outputs, *graph.captured):
        _stays(found, graph, name)
    _agree(found, graph)
    while _straighten(found) or _spare(found, graph):
        pass
    return found


def _visit(
    found: Findings, graph: Graph, node: onnx.NodeProto, number: int, shapes: dict[str, Shape]
) -> None:
    if not any(name in shapes for name in node.output):
        return  # nothing needs it
    site = Site(found, graph, node, number, shapes)
    rule = rule_of(node)
    if rule is None or any(True for _ in subgraphs(node)):
        site.refuse(f"the operator {node.op_type} cannot be followed")
    else:
        rule(site)
        site.keep_others()


def _stays(found: Findings, graph: Graph, name: str) -> None:
    labels = found.labels.get(name)
    if labels is not None:
        maker = next(i for i, node in enumerate(graph.nodes) if name in node.output)
        why = "they are the model's output" if name in graph.outputs else "a subgraph reads them"
        found.frozen.append((maker, labels, why))
        found.units.freeze(labels)


def _agree(found: Findings, graph: Graph) -> None:
    """A constant that several nodes read is cut for all of them alike, or not at all."""
    by_tensor: dict[str, list] = {}
    for slot in found.slots:
        by_tensor.setdefault(slot.tensor, []).append(slot)
    for tensor, slots in by_tensor.items():
        readers = {i for i, node in enumerate(graph.nodes) if tensor in node.input}
        for axis in {slot.axis for slot in slots}:
            here = [slot for slot in slots if slot.axis == axis]
            for slot in here[1:]:
                found.units.tie(here[0].labels, slot.labels)
            if readers - {slot.node for slot in here} or graph.kept(tensor):
                found.frozen.append((here[0].node, here[0].labels, "other nodes read the same weights"))
                found.units.freeze(here[0].labels)


def _straighten(found: Findings) -> bool:
    """What is left of a tensor has to be a tensor: where labels differ along two axes, whole rows go together.

    The longest axis stays free: in a channel shuffle of two groups, channels go in pairs. Says whether any were tied.
    """
    changed = False
    for labels in found.labels.values():
        roots = squeezed(found.units.find(labels))
        differ = [axis for axis in range(roots.ndim) if roots.shape[axis] > 1]
        if len(differ) > 1:
            changed = True
            free = max(differ, key=lambda axis: roots.shape[axis])
            for axis in differ:
                if axis != free:
                    found.units.tie_along(roots, axis)
    return changed


def _spare(found: Findings, graph: Graph) -> bool:
    """Let a unit stay that is all there is of a tensor; say whether there was any."""
    changed = False
    makers = {name: number for number, node in enumerate(graph.nodes) for name in node.output}
    for name, labels in found.labels.items():
        roots = np.unique(found.units.find(labels))
        if len(roots) == 1 and roots[0] != STAYS:
            changed = True
            found.frozen.append((makers[name], labels, LAST))
            found.units.freeze(labels)
    return changed


def names_of(graph: Graph) -> list[str]:
    """Return what each node is called, in the order that the walk counts."""
    return [node.name or node.output[0] for node in graph.nodes]


def kept_by(found: Findings, removed: np.ndarray) -> Kept:
    """Return the function that says which labels stay when these units (as `Units.find` gives them) go."""
    gone = np.unique(removed)

    def kept(labels: np.ndarray) -> np.ndarray:
        return ~np.isin(found.units.find(labels), gone)

    return kept
