"""Networks with random weights for benchmarks, made with onnx alone: time depends on shapes, not on weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class _Net:
    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape, self.last = shape, "x"

    def conv(
        self,
        out: int,
        kernel: tuple[int, int],
        *,
        stride: int = 1,
        depthwise: bool = False,
        relu: bool = True,
    ) -> None:
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
        self.last = name
        if relu:
            self.relu()
        self.shape = (out, -(-self.shape[1] // stride), -(-self.shape[2] // stride))

    def relu(self) -> None:
        self.nodes.append(helper.make_node("Relu", [self.last], [f"{self.last}.relu"]))
        self.last = f"{self.last}.relu"

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


class _Wide(_Net):
    """A net with branches: tensors are (name, channels, height, width)."""

    def conv_from(self, source: tuple[str, tuple[int, int, int]], out: int, kernel: int, **more: Any) -> None:
        self.last, self.shape = source
        self.conv(out, (kernel, kernel), **more)

    def here(self) -> tuple[str, tuple[int, int, int]]:
        return self.last, self.shape

    def add(self, other: tuple[str, tuple[int, int, int]]) -> None:
        name = f"add{len(self.nodes)}"
        self.nodes.append(helper.make_node("Add", [self.last, other[0]], [name]))
        self.last = name

    def concat(self, other: tuple[str, tuple[int, int, int]]) -> None:
        name = f"concat{len(self.nodes)}"
        self.nodes.append(helper.make_node("Concat", [self.last, other[0]], [name], axis=1))
        self.last, self.shape = name, (self.shape[0] + other[1][0], *self.shape[1:])

    def pool(self) -> None:
        name = f"pool{len(self.nodes)}"
        self.nodes.append(
            helper.make_node("MaxPool", [self.last], [name], kernel_shape=[2, 2], strides=[2, 2])
        )
        self.last, self.shape = name, (self.shape[0], self.shape[1] // 2, self.shape[2] // 2)

    def upsample(self) -> None:
        name = f"up{len(self.nodes)}"
        if not any(tensor.name == "scales" for tensor in self.weights):
            self.weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"))
        self.nodes.append(helper.make_node("Resize", [self.last, "", "scales"], [name], mode="nearest"))
        self.last, self.shape = name, (self.shape[0], self.shape[1] * 2, self.shape[2] * 2)


def mobilenet_v2(size: int = 96) -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al., CVPR 2018), width 1, on 3 x `size` x `size` pictures: 3.5 million parameters."""
    inputs = (3, size, size)
    net = _Wide(inputs)
    net.conv(32, (3, 3), stride=2)
    stages = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expansion, channels, count, stride in stages:
        for number in range(count):
            source = net.here()
            if expansion > 1:
                net.conv(source[1][0] * expansion, (1, 1))
            net.conv(net.shape[0], (3, 3), stride=1 if number else stride, depthwise=True)
            net.conv(channels, (1, 1), relu=False)
            if number:
                net.add(source)
    net.conv(1280, (1, 1))
    return net.build(1000, inputs)


def vgg(size: int = 32) -> onnx.ModelProto:
    """A VGG of eight convolutions (Simonyan and Zisserman, ICLR 2015) on small pictures: 4.7 million parameters."""
    inputs = (3, size, size)
    net = _Wide(inputs)
    for width in (64, 128, 256, 512):
        net.conv(width, (3, 3))
        net.conv(width, (3, 3))
        net.pool()
    return net.build(10, inputs)


def u_net(size: int = 64, width: int = 16) -> onnx.ModelProto:
    """A U-Net (Ronneberger et al., MICCAI 2015) with four scales, its result pooled: concat and resize."""
    inputs = (3, size, size)
    net = _Wide(inputs)
    skips = []
    for scale in range(4):
        net.conv(width << scale, (3, 3))
        net.conv(width << scale, (3, 3))
        skips.append(net.here())
        if scale < 3:
            net.pool()
    for scale in (2, 1, 0):
        net.upsample()
        net.concat(skips[scale])
        net.conv(width << scale, (3, 3))
        net.conv(width << scale, (3, 3))
    return net.build(2, inputs)


def resnet56() -> onnx.ModelProto:
    """ResNet56 of CIFAR-10 (He et al., CVPR 2016), with convolutions as shortcuts."""
    inputs = (3, 32, 32)
    net = _Wide(inputs)
    net.conv(16, (3, 3))
    for width in (16, 32, 64):
        for number in range(9):
            source = net.here()
            stride = 2 if width > 16 and not number else 1
            net.conv(width, (3, 3), stride=stride)
            net.conv(width, (3, 3), relu=False)
            if stride > 1:
                kept = net.here()
                net.conv_from(source, width, 1, stride=2, relu=False)
                source, (net.last, net.shape) = net.here(), kept
            net.add(source)
            net.relu()
    return net.build(10, inputs)


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
