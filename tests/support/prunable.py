"""Small networks that pruning is tested on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.model import Model, from_proto

CLASSES = 4


class Net:
    """Adds nodes one after the other; every layer's weights are drawn from one seeded source."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, *shape: int) -> str:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        self.weights[name] = self.rng.normal(0, scale, shape).astype(np.float32)
        return name

    def conv(self, x: str, name: str, inputs: int, outputs: int, *, bias: bool = True) -> str:
        names = [x, self.weight(f"{name}.w", outputs, inputs, 3, 3)]
        names += [self.weight(f"{name}.b", outputs)] if bias else []
        self.nodes.append(helper.make_node("Conv", names, [f"{name}.y"], name=name, pads=[1] * 4))
        return f"{name}.y"

    def norm(self, x: str, name: str, channels: int) -> str:
        self.weight(f"{name}.shift", channels)
        self.weight(f"{name}.mean", channels)
        self.weights[f"{name}.scale"] = self.rng.uniform(0.2, 2, channels).astype(np.float32)
        self.weights[f"{name}.var"] = self.rng.uniform(0.5, 2, channels).astype(np.float32)
        names = [x, *(f"{name}.{part}" for part in ("scale", "shift", "mean", "var"))]
        self.nodes.append(helper.make_node("BatchNormalization", names, [f"{name}.y"], name=name))
        return f"{name}.y"

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def head(self, x: str, channels: int) -> str:
        x = self.node("Flatten", [self.node("GlobalAveragePool", [x], "pooled")], "flat")
        names = [x, self.weight("head.w", CLASSES, channels), self.weight("head.b", CLASSES)]
        return self.node("Gemm", names, "scores", transB=1)

    def model(self, output: str, side: int = 8) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, side, side])],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", CLASSES])],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return from_proto(proto, "net")


def chain(width: int = 32, *, norms: bool = False) -> Model:
    """Return three convolutions in a row and a dense layer."""
    net = Net()
    x, channels = "x", 3
    for number in range(3):
        x = net.conv(x, f"conv{number}", channels, width, bias=not norms)
        x = net.norm(x, f"norm{number}", width) if norms else x
        x, channels = net.node("Relu", [x], f"relu{number}"), width
    return net.model(net.head(x, width))


def residual(width: int = 32, blocks: int = 3) -> Model:
    """Return a stem and residual blocks of two convolutions, all of one width."""
    net = Net()
    x = net.node("Relu", [net.conv("x", "stem", 3, width)], "stem.relu")
    for number in range(blocks):
        y = net.node("Relu", [net.conv(x, f"b{number}.conv1", width, width)], f"b{number}.relu1")
        y = net.conv(y, f"b{number}.conv2", width, width)
        x = net.node("Relu", [net.node("Add", [y, x], f"b{number}.add")], f"b{number}.relu2")
    return net.model(net.head(x, width))


def gathered(first: int = 24, second: int = 24) -> Model:
    """Return two branches whose channels are put side by side before a convolution reads them."""
    net = Net()
    left = net.node("Relu", [net.conv("x", "left", 3, first)], "left.relu")
    right = net.node("Relu", [net.conv("x", "right", 3, second)], "right.relu")
    x = net.node("Concat", [left, right], "both", axis=1)
    x = net.node("Relu", [net.conv(x, "after", first + second, 16)], "after.relu")
    return net.model(net.head(x, 16))


def rows(count: int = 32, *, seed: int = 1, side: int = 8) -> np.ndarray:
    """Return inputs [count, 3, side, side]."""
    return np.random.default_rng(seed).normal(size=(count, 3, side, side)).astype(np.float32)
