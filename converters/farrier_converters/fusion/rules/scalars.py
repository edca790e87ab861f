"""A number that multiplies a result of the network goes back to the weights that the result comes from.

The 1 / sqrt(d) of attention is the example: it multiplies every score of every head, or once and for all the weights
that make the queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ...graph.edit import attribute, standard
from ..record import Rewrite, Rule
from ..site import Site, copy

LARGEST = 1e3  # factor, either way; beyond it weights would leave the range they were trained in
MOVERS = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten")
MAX_STEPS = 8


@dataclass(frozen=True)
class _Way:
    """The nodes from a linear operator up to the product with a number, the linear operator first."""

    nodes: tuple[onnx.NodeProto, ...]
    shift: onnx.NodeProto | None  # an Add of a constant on the way, which has to be scaled too


def find(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Scale the weights at the end of the way back instead of the result."""
    found = site.with_scalar(node)
    if found is None or (standard(node, "Div") and (found[2] or not found[1])):
        return None
    factor = 1 / found[1] if standard(node, "Div") else found[1]
    if not 1 / LARGEST <= abs(factor) <= LARGEST or not site.floats(node.output[0]):
        return None
    way = _back(site, found[0], node)
    if way is None:
        return None
    made = [_scaled(site, n, way, factor) for n in way.nodes]
    made[-1].output[0] = node.output[0]
    return Rewrite((*way.nodes, node), tuple(made))


def _back(site: Site, name: str, reader: onnx.NodeProto) -> _Way | None:
    """Walk back over what a factor passes through, as long as nothing else reads it."""
    nodes: list[onnx.NodeProto] = []
    shift = None
    for _ in range(MAX_STEPS):
        node = site.maker(name, *MOVERS, "Add", "MatMul", "Gemm", "Conv")
        if node is None or site.graph.only_reader(name) is not (nodes[0] if nodes else reader):
            return None
        nodes.insert(0, node)
        if standard(node, "Add"):
            constant = next((n for n in node.input if n in site.graph.initializers), None)
            if constant is None or shift is not None:
                return None
            shift = node
            name = next(n for n in node.input if n != constant)
            continue
        if not standard(node, *MOVERS) and _weighted(site, node):
            return _Way(tuple(nodes), shift) if len(nodes) > 1 else None
        if standard(node, "Gemm", "Conv") or (standard(node, "MatMul") and shift is not None):
            return None
        name = node.input[0]  # a product of two activations takes the factor on either side
    return None


def _weighted(site: Site, node: onnx.NodeProto) -> bool:
    """Say whether a node's weights can be scaled: constants, and no large ones that others go on reading."""
    if any(site.shared(name) for name in node.input[1:]):
        return False
    tensors = [site.graph.initializers.get(name) for name in node.input[1:] if name]
    return all(t is not None and t.data_type == onnx.TensorProto.FLOAT for t in tensors)


def _scaled(site: Site, node: onnx.NodeProto, way: _Way, factor: float) -> onnx.NodeProto:
    made = copy(node)
    if node is way.nodes[0]:
        places = [1] if attribute(node, "beta", 1.0) != 1.0 and not node.input[2:] else [1, 2]
    else:
        places = (
            [i for i, n in enumerate(node.input) if n in site.graph.initializers] if node is way.shift else []
        )
    for place in places:
        value = site.constant(node.input[place]) if len(node.input) > place else None
        if value is not None:
            scaled = (value.astype(np.float64) * factor).astype(np.float32)
            made.input[place] = site.graph.add_constant(f"{node.input[place]}_scaled", scaled)
    return made


SCALARS = Rule("number into the weights it scales", ("Mul", "Div"), find)
