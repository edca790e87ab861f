"""Find the layers whose weights have the pattern that sparse tensor cores need: two zeros in each four inputs.

For each output channel and kernel pixel, every four input channels in a row hold at least two zeros, and their number
is a multiple of four: NVIDIA, "TensorRT Developer Guide", "Structured Sparsity".
"""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, standard

LAYERS = ("Conv", "Gemm", "MatMul")
GROUP = 4
ZEROS = 2


def sparse_layers(graph: Graph) -> list[str]:
    """Return the first outputs of the layers whose weights have the pattern, in graph order."""
    return [node.output[0] for node in graph.nodes if standard(node, *LAYERS) and _is_sparse(graph, node)]


def follows_pattern(weights: np.ndarray, axis: int) -> bool:
    """Say whether every four neighbours along an axis hold at least two zeros."""
    channels = weights.shape[axis]
    if channels % GROUP or not weights.size:
        return False
    groups = np.moveaxis(weights, axis, -1).reshape(-1, GROUP)
    return bool(((groups == 0).sum(axis=1) >= ZEROS).all())


def _is_sparse(graph: Graph, node: onnx.NodeProto) -> bool:
    weights = _weights(graph, node.input[1])
    if weights is None or weights.ndim < 2:
        return False
    turned = standard(node, "Conv") or bool(attribute(node, "transB", 0))
    return follows_pattern(weights, 1 if turned else weights.ndim - 2)


def _weights(graph: Graph, name: str) -> np.ndarray | None:
    """Return constant weights, or the integers that they are stored in: zero is zero in both."""
    maker = graph.producer.get(name)
    while maker is not None and standard(maker, "DequantizeLinear", "QuantizeLinear"):
        name = maker.input[0]
        maker = graph.producer.get(name)
    return graph.constant(name)
