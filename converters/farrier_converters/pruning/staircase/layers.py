"""What a node is to a staircase: its kind, and the numbers that its time hangs on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from ...graph.edit import Graph, attribute, standard
from ...graph.types import TensorType
from .table import OTHER, Staircase

# DENSE is a product of one row with weights, PRODUCT one of many rows
CONV, STRIDED, POINTWISE, DEPTHWISE = "conv", "strided", "pointwise", "depthwise"
TRANSPOSED, DENSE, PRODUCT, RECURRENT = "transposed", "dense", "product", "recurrent"
KINDS = (CONV, STRIDED, POINTWISE, DEPTHWISE, TRANSPOSED, DENSE, PRODUCT, RECURRENT, OTHER)
RECURRENT_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNKNOWN_SIZE = 32  # of a dimension that is free, besides the batch


@dataclass(frozen=True)
class Layer:
    """One node with weights, at batch 1; the fields are the arguments of `Staircase.layer_cost`."""

    kind: str
    outputs: int
    inputs: int
    positions: int = 1
    kernel: int = 1
    groups: int = 1

    def cost(self, staircase: Staircase) -> float:
        """Return its milliseconds."""
        return staircase.layer_cost(
            self.kind,
            outputs=self.outputs,
            inputs=self.inputs,
            positions=self.positions,
            kernel=self.kernel,
            groups=self.groups,
        )

    @property
    def multiply_adds(self) -> int:
        """Those that the layer needs, whatever the engine does."""
        return self.positions * self.weights

    @property
    def weights(self) -> int:
        """How many numbers they are multiplied with."""
        return self.kernel * self.outputs * self.inputs // max(self.groups, 1)


def kind_of(node: onnx.NodeProto, graph: Graph, shapes: Mapping[str, TensorType]) -> str | None:
    """Return the kind of layer that a node is; None where it has no weights that could be cut."""
    layer = layer_of(node, graph, shapes)
    return None if layer is None else layer.kind


def layer_of(node: onnx.NodeProto, graph: Graph, shapes: Mapping[str, TensorType]) -> Layer | None:
    """Return what a node is as a layer; None for one without weights (see `cost.other_of`)."""
    if standard(node, "Conv", "ConvTranspose"):
        return _convolution(node, shapes)
    if standard(node, "Gemm", "MatMul"):
        return _dense(node, graph, shapes)
    if standard(node, *RECURRENT_GATES):
        return _recurrent(node, shapes)
    return None


def sizes(kind: TensorType | None) -> list[int]:
    """Return a shape at batch 1, with a guess for what is free; [] where nothing is known."""
    shape = (kind.shape or ()) if kind is not None else ()
    return [(size or UNKNOWN_SIZE) if axis else 1 for axis, size in enumerate(shape)]


def _weight(name: str, shapes: Mapping[str, TensorType], rank: int) -> list[int] | None:
    known = shapes.get(name)
    shape = None if known is None else known.shape
    if shape is None or len(shape) < rank or not all(shape):
        return None
    return [int(size or 1) for size in shape]


def _convolution(node: onnx.NodeProto, shapes: Mapping[str, TensorType]) -> Layer | None:
    weight = _weight(node.input[1], shapes, 3)
    if weight is None:
        return None
    groups = attribute(node, "group", 1)
    kernel = math.prod(weight[2:])
    spatial = sizes(shapes.get(node.output[0]))[2:] or [UNKNOWN_SIZE] * (len(weight) - 2)
    if node.op_type == "ConvTranspose":
        # each input position meets the whole kernel
        source = sizes(shapes.get(node.input[0]))[2:] or [UNKNOWN_SIZE] * (len(weight) - 2)
        return Layer(TRANSPOSED, weight[1] * groups, weight[0], math.prod(source), kernel, groups)
    inputs = weight[1] * groups
    if groups > 1 and groups == inputs:
        kind = DEPTHWISE
    elif kernel == 1:
        kind = POINTWISE
    elif any(step != 1 for step in attribute(node, "strides", ())):
        kind = STRIDED
    else:
        kind = CONV
    return Layer(kind, weight[0], inputs, math.prod(spatial), kernel, groups)


def _dense(node: onnx.NodeProto, graph: Graph, shapes: Mapping[str, TensorType]) -> Layer | None:
    weight = _weight(node.input[1], shapes, 2)
    if weight is None or len(weight) != 2 or node.input[1] in graph.producer:
        return None
    turned = node.op_type == "Gemm" and attribute(node, "transB", 0)
    inputs, outputs = weight[::-1] if turned else weight
    result = sizes(shapes.get(node.output[0]))
    rows = max(math.prod(result[:-1]), 1)
    return Layer(DENSE if rows == 1 else PRODUCT, outputs, inputs, rows)


def _recurrent(node: onnx.NodeProto, shapes: Mapping[str, TensorType]) -> Layer | None:
    weight, again = _weight(node.input[1], shapes, 3), _weight(node.input[2], shapes, 3)
    if weight is None or again is None:
        return None
    source = sizes(shapes.get(node.input[0]))
    steps = source[1] if len(source) == 3 and attribute(node, "layout", 0) else None
    shape = shapes.get(node.input[0])
    if steps is None:
        first = shape.shape[0] if shape is not None and shape.shape else None
        steps = first or UNKNOWN_SIZE
    gates = RECURRENT_GATES[node.op_type]
    # every step multiplies the inputs and the state: as many "inputs" as both together
    return Layer(RECURRENT, again[2], weight[2] + again[2], steps, gates * weight[0])
