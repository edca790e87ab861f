"""Networks with random weights for benchmarks, made with onnx alone: time depends on shapes, not on weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Net:
    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape, self.last = shape, "x"

    def conv(self, out: int, kernel: tuple[int, int], *, stride: int = 1, depthwise: bool = False) -> None:
        channels = self.shape[0]
        group = channels if depthwise else 1
        fan_in = channels // group * kernel[0] * kernel[1]
        weight = self.rng.normal(0, (2 / fan_in) ** 0.5, (out, channels // group, *kernel)).astype(np.float32)
        name = f"conv{len(self.nodes)}"
        self.weights += [
            numpy_helper.from_array(weight, f"{name}.w"),
            numpy_helper.from_array(np.zeros(out, np.float32), f"{name}.b"),
        ]
        inputs = [self.last, f"{name}.w", f"{name}.b"]
        self.nodes.append(
            helper.make_node(
                "Conv",
                inputs,
                [name],
                kernel_shape=kernel,
                strides=[stride, stride],
                group=group,
                auto_pad="SAME_UPPER",
            )
        )
        self.nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        self.last = f"{name}.relu"
        self.shape = (out, -(-self.shape[1] // stride), -(-self.shape[2] // stride))

    def build(self, classes: int, inputs: tuple[int, int, int]) -> onnx.ModelProto:
        self.nodes += [
            helper.make_node("GlobalAveragePool", [self.last], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
            helper.make_node("Gemm", ["flat", "fc.w", "fc.b"], ["y"]),
        ]
        weight = self.rng.normal(0, 0.1, (self.shape[0], classes)).astype(np.float32)
        self.weights += [
            numpy_helper.from_array(weight, "fc.w"),
            numpy_helper.from_array(np.zeros(classes, np.float32), "fc.b"),
        ]
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *inputs])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", classes])],
            self.weights,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def ds_cnn() -> onnx.ModelProto:
    """DS-CNN-S of keyword spotting: input 1x49x10, 22.6 k parameters, tens of microseconds."""
    inputs = (1, 49, 10)
    net = _Net(inputs)
    net.conv(64, (10, 4), stride=2)
    for _ in range(4):
        net.conv(64, (3, 3), depthwise=True)
        net.conv(64, (1, 1))
    return net.build(12, inputs)


def conv_net(width: int = 32, size: int = 64) -> onnx.ModelProto:
    """A plain convolution net on 3 x `size` x `size` pictures: some milliseconds."""
    inputs = (3, size, size)
    net = _Net(inputs)
    net.conv(width, (3, 3), stride=2)
    for stage in range(3):
        for _ in range(3):
            net.conv(width << stage, (3, 3))
        net.conv(width << (stage + 1), (3, 3), stride=2)
    return net.build(10, inputs)
