"""Keep in float what was left in float: ONNX Runtime quantizes float weights between conversions by itself.

It gives them one scale for all channels (its transformer WeightBiasQuantization, seen in 1.32), which loses more than
the integers that an operator was spared. It does so only where the scale of the operator's input is one number: so
such an input is dequantized by a scale per channel, all of them the same.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..graph.edit import Graph, attribute, standard

QUANTIZED_BY_ENGINE = ("Conv", "ConvTranspose", "Gemm")


def fence(graph: Graph) -> None:
    """Give each such operator, in place, an input of its own; the values stay the same."""
    graph.index()
    for node in [n for n in graph.nodes if standard(n, *QUANTIZED_BY_ENGINE)]:
        maker, channels = graph.producer.get(node.input[0]), _channels(graph, node)
        if channels is None or maker is None or not standard(maker, "DequantizeLinear"):
            continue
        parameters = [graph.constant(name) for name in maker.input[1:]]
        if any(value is None or value.size > 1 for value in parameters):
            continue
        rows = [
            graph.add_constant(f"{name}_rows", np.repeat(np.asarray(value).reshape(-1), channels))
            for name, value in zip(maker.input[1:], parameters, strict=True)
        ]
        apart = graph.fresh(f"{maker.output[0]}_apart")
        axis = 0 if attribute(node, "transA", 0) else 1
        graph.add_node("DequantizeLinear", [maker.input[0], *rows], apart, axis=axis)
        node.input[0] = apart


def _channels(graph: Graph, node: onnx.NodeProto) -> int | None:
    """Return the channels that an operator with float weights reads, None for any other."""
    weight = graph.constant(node.input[1])
    if weight is None or weight.dtype != np.float32:
        return None
    if standard(node, "Conv"):
        return weight.shape[1] * attribute(node, "group", 1)
    return weight.shape[1 if attribute(node, "transB", 0) else 0]
