"""One small model for each kind of layer that may become sparse, and a small classifier."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.model import Model, from_proto

# operator, shape of the weights, shape of the input, attributes
KINDS: dict[str, tuple[str, tuple[int, ...], list[Any], dict[str, Any]]] = {
    "conv": (
        "Conv",
        (6, 4, 3, 2),
        ["N", 4, 9, 8],
        {"strides": [2, 1], "pads": [1, 0, 1, 1], "dilations": [1, 2]},
    ),
    "grouped": ("Conv", (6, 2, 3, 3), ["N", 4, 6, 6], {"group": 2}),
    "depthwise": ("Conv", (4, 1, 3, 3), ["N", 4, 6, 6], {"group": 4, "auto_pad": "SAME_UPPER"}),
    "conv1d": ("Conv", (6, 4, 3), ["N", 4, 9], {}),
    "transposed": ("ConvTranspose", (4, 6, 3, 2), ["N", 4, 5, 5], {"strides": [2, 3], "dilations": [2, 1]}),
    "transposed groups": ("ConvTranspose", (4, 3, 3, 3), ["N", 4, 5, 5], {"group": 2}),
    "gemm": ("Gemm", (4, 6), ["N", 4], {}),
    "gemm turned": ("Gemm", (6, 4), ["N", 4], {"transB": 1}),
    "gemm of a turned input": ("Gemm", (4, 6), [4, "N"], {"transA": 1}),
    "matmul": ("MatMul", (4, 6), ["N", 5, 4], {}),
    "left matmul": ("MatMul", (6, 4), ["N", 4, 5], {}),
    "tied": ("Tied", (6, 4), ["N", 4], {}),
}
SPATIAL = ("Conv", "ConvTranspose")


def make(
    nodes: Iterable[Any], inputs: dict[str, list[Any]], results: list[str], constants: dict[str, np.ndarray]
) -> Model:
    """Build a model of float inputs."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in results],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(proto)
    del inferred.graph.value_info[:]
    return from_proto(inferred, "test")


def layer(kind: str, seed: int = 0) -> Model:
    """Build a model "x" -> "y" of one operator called "layer", with weights "w" and no bias."""
    op, shape, inputs, attributes = KINDS[kind]
    w = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if op == "Tied":
        nodes = [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], name="layer"),
        ]
    else:
        names = ["w", "x"] if kind == "left matmul" else ["x", "w"]
        nodes = [helper.make_node(op, names, ["y"], name="layer", **attributes)]
    return make(nodes, {"x": inputs}, ["y"], {"w": w})


def channels_last(kind: str, result: np.ndarray) -> np.ndarray:
    """Return the layer's result as [rows, outputs]."""
    axis = 1 if KINDS[kind][0] in SPATIAL or kind == "left matmul" else -1
    moved = np.moveaxis(result, axis, -1)
    return moved.reshape(-1, moved.shape[-1])


def correlated(rows: int, *shape: int, channels: int = 0, seed: int = 0) -> np.ndarray:
    """Make inputs of which some channels are louder, channels are mixed, and neighbours in space are alike."""
    mixing, rng = np.random.default_rng(0), np.random.default_rng((1, seed))
    count = shape[channels]
    matrix = mixing.standard_normal((count, count)) * mixing.uniform(0.2, 3, (count, 1))
    value = rng.standard_normal((rows, *shape))
    for axis in range(1, value.ndim):
        if axis != channels % len(shape) + 1:
            value = value + np.roll(value, 1, axis) + np.roll(value, 2, axis)
    mixed = np.moveaxis(
        np.moveaxis(value, channels % len(shape) + 1, -1) @ matrix, -1, channels % len(shape) + 1
    )
    return np.ascontiguousarray(mixed, np.float32)


def batches(kind: str, count: int = 4) -> list[dict[str, np.ndarray]]:
    """Make inputs for a model of one layer."""
    shape = KINDS[kind][2]
    rest = [size for size in shape if size != "N"]
    channels = -1 if kind == "matmul" else 0
    made = [correlated(32, *rest, channels=channels, seed=seed) for seed in range(count)]
    return [{"x": value if shape[0] == "N" else np.ascontiguousarray(value.T)} for value in made]


def classifier(seed: int = 0) -> Model:
    """Build a convolutional classifier with a norm: images [N, 4, 8, 8] to logits [N, 5]."""
    rng = np.random.default_rng(seed)

    def weights(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    constants = {
        "w1": weights(8, 4, 3, 3),
        "scale": np.ones(8, np.float32),
        "shift": np.zeros(8, np.float32),
        "mean": np.zeros(8, np.float32),
        "variance": np.ones(8, np.float32),
        "w2": weights(16, 8, 3, 3),
        "b2": np.full(16, 0.1, np.float32),
        "w3": weights(5, 16),
        "b3": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["images", "w1"], ["c1"], name="first", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"]),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="second", strides=[2, 2]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("GlobalAveragePool", ["r2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], name="last", transB=1),
    ]
    return make(nodes, {"images": ["N", 4, 8, 8]}, ["logits"], constants)
