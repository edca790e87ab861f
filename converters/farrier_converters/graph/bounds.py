"""Between which numbers an activation function keeps a tensor."""

from __future__ import annotations

import onnx

from .edit import Graph, attribute, standard

Bounds = tuple[float | None, float | None]


def bounds(graph: Graph, node: onnx.NodeProto) -> Bounds | None:
    """Return the least and the most of a Relu or Clip, None for an end that is open.

    None for any other node, and for a Clip whose numbers are computed.
    """
    if standard(node, "Relu"):
        return 0.0, None
    if not standard(node, "Clip"):
        return None
    if graph.opset < 11:
        return attribute(node, "min"), attribute(node, "max")
    ends = [graph.constant(name) if name else None for name in node.input[1:3]]
    if any(name and (end is None or end.size != 1) for name, end in zip(node.input[1:3], ends, strict=True)):
        return None
    low, high = ([None if end is None else float(end.reshape(())) for end in ends] + [None, None])[:2]
    return low, high
