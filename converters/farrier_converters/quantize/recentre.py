"""The same quantized network with unsigned activations: every integer higher by 128, every scale as it was.

One scale table serves engines of either kind; on x86, ONNX Runtime is fast and exact in unsigned activations alone.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..graph.edit import Graph, standard
from ..model import Model
from . import rules

CENTRE = 128
NUMBERS = {"Pad": (2,), "Clip": (1, 2)}  # inputs that are integers of the tensor's scale


def unsigned(model: Model) -> Model:
    """Return the graph with its signed 8-bit activations as unsigned ones; weights stay signed."""
    graph = Graph(model)
    weights = {node.input[1] for node in graph.nodes if standard(node, *rules.WEIGHTED)}
    for node in graph.nodes:
        if standard(node, "QuantizeLinear", "DequantizeLinear") and node.output[0] not in weights:
            positions = (0, 2)
        elif node.op_type in NUMBERS and _integers(graph, node.input[0]):
            positions = NUMBERS[node.op_type]
        else:
            continue
        for position in positions:
            _raise(graph, node, position)
    return graph.build()


def _integers(graph: Graph, name: str) -> bool:
    """Say whether a tensor comes from a quantizer, at once or through what only moves integers."""
    maker = graph.producer.get(name)
    while maker is not None and standard(maker, *rules.CARRIERS, *NUMBERS):
        maker = graph.producer.get(maker.input[0])
    return maker is not None and standard(maker, "QuantizeLinear")


def _raise(graph: Graph, node: onnx.NodeProto, position: int) -> None:
    value = graph.constant(node.input[position]) if position < len(node.input) else None
    if value is not None and value.dtype == np.int8:
        raised = (value.astype(np.int16) + CENTRE).astype(np.uint8)
        node.input[position] = graph.add_constant(f"{node.input[position]}_unsigned", raised)
