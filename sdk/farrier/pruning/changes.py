"""What happened to each layer."""

from __future__ import annotations

from farrier_converters.model import Model
from farrier_converters.pruning.staircase import Staircase, node_costs
from farrier_converters.pruning.staircase.table import OTHER

from .result import LayerChange


def layers(before: Model, after: Model, staircase: Staircase) -> tuple[LayerChange, ...]:
    """Return the layers with weights of a model beside those of the one that was made from it, in channels."""
    left = {node.output: node.layer for node in node_costs(after, staircase)}
    names = {node.output[0]: node.name or node.output[0] for node in before.proto.graph.node}
    found = []
    for node in node_costs(before, staircase):
        if node.layer.kind == OTHER:
            continue
        now = left.get(node.output)
        ends = (0, 0) if now is None else (now.outputs, now.inputs)
        found.append(
            LayerChange(
                names.get(node.output, node.output),
                node.layer.kind,
                (node.layer.outputs, ends[0]),
                (node.layer.inputs, ends[1]),
            )
        )
    return tuple(found)
