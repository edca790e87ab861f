"""The predicted time of a whole model on a target: its layers by the staircase, the rest by the element."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import onnx

from ...graph.edit import Graph, standard
from ...graph.types import TensorType, infer
from ...model import Model
from .layers import Layer, layer_of, sizes
from .table import NS_PER_MS, OTHER, Staircase

# what engines compute as part of the node before, or not at all
FREE = (
    "Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "BatchNormalization", "Identity",
    "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Constant", "Shape", "Gather", "QuantizeLinear",
    "DequantizeLinear", "Cast",
)  # fmt: skip


@dataclass(frozen=True)
class NodeCost:
    """One node's share of a prediction; `output` is the name of its first output."""

    output: str
    layer: Layer
    ms: float


def predict(model: Model, staircase: Staircase) -> float:
    """Return the milliseconds of one run at batch 1.

    The model is the float one, clean and fused: a staircase of integers says what its layers cost as integers.
    """
    return staircase.run_ns / NS_PER_MS + sum(node.ms for node in node_costs(model, staircase))


def node_costs(model: Model, staircase: Staircase) -> list[NodeCost]:
    """Return what each node of a model costs, in its order; what is free is left out."""
    graph = Graph(model)
    shapes = infer(graph.without_weights())
    layers = [(node.output[0], work_of(node, graph, shapes)) for node in graph.ordered()]
    fitted = staircase.of_size(_weights(layer for _, layer in layers))
    return [NodeCost(name, layer, layer.cost(fitted)) for name, layer in layers if layer]


def weights(model: Model) -> int:
    """Return how many weights the layers of a model have together: what `Staircase.of_size` asks for."""
    graph = Graph(model)
    shapes = infer(graph.without_weights())
    return _weights(layer_of(node, graph, shapes) for node in graph.ordered())


def _weights(layers: Iterable[Layer | None]) -> int:
    return sum(layer.weights for layer in layers if layer is not None and layer.kind != OTHER)


def work_of(node: onnx.NodeProto, graph: Graph, shapes: Mapping[str, TensorType]) -> Layer | None:
    """Return a node as a layer, with weights or without; None where it costs nothing of its own.

    What has no weights is of the kind "other": as many outputs as its result has channels, for each position.
    """
    found = layer_of(node, graph, shapes)
    if found is not None or standard(node, *FREE):
        return found
    results = [sizes(shapes.get(name)) for name in node.output if name]
    read = [sizes(shapes.get(name)) for name in node.input if name and name not in graph.initializers]
    largest = max((*results, *read), key=math.prod, default=[])
    if not largest:
        return None
    channels = largest[1] if len(largest) > 2 else largest[-1]
    return Layer(OTHER, channels, channels, math.prod(largest) // max(channels, 1), 1, channels)
