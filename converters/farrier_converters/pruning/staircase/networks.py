"""The small networks whose times make a staircase: a few equal layers, one width of which changes.

Inputs and outputs keep their sizes, so that what an engine spends around the layers is the same for every width.
Weights are random: time hangs on shapes. `x` is the input of each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...model import Model, from_proto

OUTER = 64  # channels of what does not change
SIDE = 16  # pixels of a map's side
TOKENS = 64  # rows of a product
FEATURES = 256  # of a dense layer's other side
STEPS = 16  # of a recurrent layer
BLOCKS = 2  # pairs of layers, there and back
OPSET, IR = 17, 8
FLOAT = onnx.TensorProto.FLOAT


class Net:
    """A network that is being built; every method adds nodes behind `last` and moves it on."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape, self.last, self.channels = shape, "x", shape[1]

    def parameter(self, *shape: int) -> str:
        """Return the name of a new weight."""
        name = f"w{len(self.weights)}"
        fan_in = max(int(np.prod(shape[1:])), 1)
        values = self.rng.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add a node that reads `inputs`, and return its result."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        self.last = name
        return name

    def conv(self, outputs: int, kernel: int, *, stride: int = 1, depthwise: bool = False) -> str:
        """Add a convolution with a bias and a Relu."""
        groups = self.channels if depthwise else 1
        weight = self.parameter(outputs, self.channels // groups, kernel, kernel)
        around = [kernel // 2] * 4
        self.node(
            "Conv", self.last, weight, self.parameter(outputs),
            kernel_shape=[kernel, kernel], pads=around, strides=[stride, stride], group=groups,
        )  # fmt: skip
        self.channels = outputs
        return self.node("Relu", self.last)

    def pool(self) -> str:
        """Average over the map."""
        return self.node("GlobalAveragePool", self.last)

    def model(self, outputs: list[tuple[str, tuple[int, ...]]]) -> Model:
        """Return the model, whose outputs are given with their shapes."""
        graph = helper.make_graph(
            self.nodes,
            "probe",
            [helper.make_tensor_value_info("x", FLOAT, self.shape)],
            [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in outputs],
            self.weights,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        return from_proto(proto, "probe")

    def pooled(self) -> Model:
        """Return the model whose one output is the average of the last map."""
        channels = self.channels
        return self.model([(self.pool(), (1, channels, 1, 1))])


def _map(side: int) -> Net:
    return Net((1, OUTER, side, side))


def there_and_back(
    width: int, kernel: int, *, blocks: int = BLOCKS, side: int = SIDE, back: int | None = None
) -> Model:
    """Return pairs of convolutions: to `width` channels, and back, with a kernel of its own where `back` says so."""
    net = _map(side)
    for _ in range(blocks):
        net.conv(width, kernel)
        net.conv(OUTER, back or kernel)
    return net.pooled()


def read_twice(width: int, kernel: int, *, blocks: int = BLOCKS) -> Model:
    """Return `there_and_back` where two convolutions lead back, whose sum goes on."""
    net = _map(SIDE)
    for _ in range(blocks):
        source = net.conv(width, kernel)
        one = net.conv(OUTER, kernel)
        net.last, net.channels = source, width
        net.node("Add", one, net.conv(OUTER, kernel))
    return net.pooled()


def chain(width: int, kernel: int, *, layers: int, side: int) -> Model:
    """Return equal convolutions, one after the other."""
    net = Net((1, width, side, side))
    for _ in range(layers):
        net.conv(width, kernel)
    return net.pooled()


def strided(*, heads: int, side: int) -> Model:
    """Return convolutions that all halve the same map, to one of `side` pixels a side, each averaged."""
    net = _map(2 * side)
    ends = []
    for _ in range(heads):
        net.last, net.channels = "x", OUTER
        net.conv(OUTER, 3, stride=2)
        ends.append((net.pool(), (1, OUTER, 1, 1)))
    return net.model(ends)


def depthwise(width: int, *, layers: int, side: int = SIDE) -> Model:
    """Return `there_and_back` by single pixels with depthwise convolutions in between."""
    net = _map(side)
    for _ in range(BLOCKS):
        net.conv(width, 1)
        for _ in range(layers):
            net.conv(width, 3, depthwise=True)
        net.conv(OUTER, 1)
    return net.pooled()


def residual(width: int, *, layers: int, sums: bool) -> Model:
    """Return single-pixel convolutions of `width` channels between two that lead there and back.

    With `sums`, each adds to what it reads, as in a residual network.
    """
    net = _map(SIDE)
    net.conv(width, 1)
    for _ in range(layers):
        source = net.last
        net.conv(width, 1)
        if sums:
            net.node("Add", source, net.last)
    net.conv(OUTER, 1)
    return net.pooled()


def products(width: int, *, blocks: int = BLOCKS, tokens: int = TOKENS) -> Model:
    """Return pairs of products of many rows with weights: to `width` features, and back."""
    net = Net((1, tokens, OUTER))
    for _ in range(blocks):
        net.node("MatMul", net.last, net.parameter(OUTER, width))
        net.node("Relu", net.node("Add", net.last, net.parameter(width)))
        net.node("MatMul", net.last, net.parameter(width, OUTER))
        net.node("Relu", net.node("Add", net.last, net.parameter(OUTER)))
    return net.model([(net.last, (1, tokens, OUTER))])


def dense(width: int, *, blocks: int = BLOCKS, features: int = FEATURES) -> Model:
    """Return pairs of dense layers of one row: to `width` features, and back."""
    net = Net((1, features))
    for _ in range(blocks):
        for rows, columns in ((features, width), (width, features)):
            net.node("Gemm", net.last, net.parameter(rows, columns), net.parameter(columns))
            net.node("Relu", net.last)
    return net.model([(net.last, (1, features))])


def recurrent(width: int, *, steps: int = STEPS) -> Model:
    """Return an LSTM of `width` units over `steps` steps."""
    net = Net((steps, 1, OUTER))
    weights = [net.parameter(1, 4 * width, OUTER), net.parameter(1, 4 * width, width)]
    net.nodes.append(helper.make_node("LSTM", ["x", *weights], ["", "last"], hidden_size=width, name="lstm"))
    return net.model([("last", (1, 1, width))])
