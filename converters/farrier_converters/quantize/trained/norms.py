"""Which convolutions train with a batch norm, and what it scaled their channels by before it was folded."""

from __future__ import annotations

import numpy as np

from ...graph.edit import Graph, attribute, standard
from ...model import Model

SMALLEST = 1e-4  # of a factor that weights are divided by; below it a channel is all but dead


def norm_factors(original: Model, fused: Model) -> dict[str, np.ndarray]:
    """Return the factor per channel (float32) by the name of the convolution's weights in the fused model.

    Where the original has batch norms, the convolutions that took them in; where it has none (they were folded before
    it came here), every convolution but those that make an output, with factors of one.
    """
    known = _known(Graph(original))
    graph = Graph(fused)
    found: dict[str, np.ndarray] = {}
    for node in graph.nodes:
        if not standard(node, "Conv") or len(node.input) < 3 or not node.input[2]:
            continue
        weight, bias = graph.constant(node.input[1]), graph.constant(node.input[2])
        if weight is None or bias is None or any(len(graph.readers[n]) > 1 for n in node.input[1:3]):
            continue
        factor = known.get(node.output[0]) if known else np.ones(len(weight), np.float32)
        if factor is not None and factor.shape == weight.shape[:1] and not graph.kept(node.output[0]):
            found[node.input[1]] = np.where(np.abs(factor) < SMALLEST, np.float32(1), factor).astype(
                np.float32
            )
    return found


def _known(graph: Graph) -> dict[str, np.ndarray]:
    factors = {}
    for node in graph.nodes:
        if standard(node, "BatchNormalization"):
            gamma, variance = graph.constant(node.input[1]), graph.constant(node.input[4])
            if gamma is not None and variance is not None:
                factors[node.output[0]] = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return factors
