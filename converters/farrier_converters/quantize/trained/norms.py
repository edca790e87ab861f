"""Which convolutions train with a batch norm, and what their channels are divided by meanwhile."""

from __future__ import annotations

import numpy as np

from ...graph.edit import Graph, attribute, standard
from ...model import Model

SMALLEST = 1e-4  # of a factor, beside the layer's largest: a channel below it is all but dead


def norm_factors(original: Model, fused: Model) -> dict[str, np.ndarray]:
    """Return the factor per channel (float32) by the name of the convolution's weights in the fused model.

    Where the original has batch norms, the convolutions that took them in, with what they were scaled by. Where it
    has none (they were folded before it came here), every convolution but those that make an output. A batch norm
    undoes any factor, but a training step does not: it is too large for channels that folding made small. These
    train at the size that He et al., "Delving deep into rectifiers", arXiv 1502.01852, start from: a mean square of
    2 / (inputs of a channel).
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
        factor = known.get(node.output[0]) if known else _size(weight)
        if factor is not None and factor.shape == weight.shape[:1] and not graph.kept(node.output[0]):
            dead = np.abs(factor) <= SMALLEST * np.abs(factor).max(initial=0)
            found[node.input[1]] = np.where(dead, 1, factor).astype(np.float32)
    return found


def _size(weight: np.ndarray) -> np.ndarray:
    """Return how many times larger than at the start of training each channel is."""
    channels = weight.reshape(len(weight), -1).astype(np.float64)
    return np.sqrt(np.square(channels).sum(1) / 2)


def _known(graph: Graph) -> dict[str, np.ndarray]:
    factors = {}
    for node in graph.nodes:
        if standard(node, "BatchNormalization"):
            gamma, variance = graph.constant(node.input[1]), graph.constant(node.input[4])
            if gamma is not None and variance is not None:
                factors[node.output[0]] = gamma / np.sqrt(variance + attribute(node, "epsilon", 1e-5))
    return factors
