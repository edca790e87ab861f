"""Graphs made up at random: whatever mix of layouts arises, LiteRT answers as ONNX Runtime does."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.compilers.tflite import convert
from farrier_converters.graph import run
from farrier_converters.measure import Child
from farrier_converters.model import Model, from_proto
from farrier_converters.tflite.write import write

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ai_edge_litert") is None, reason="LiteRT is not installed"
)
_STEPS = """
conv depthwise strided pool average relu clip add_constant add_self concat slice pad transpose_back shuffle resize
batch_norm softmax mean_keep reshape_there split leaky upsample_conv reduce_add
"""
STEPS = _STEPS.split()


class Grown:
    """A graph while it grows: `name` is the newest tensor, an image [N, C, H, W] of known size."""

    def __init__(self, seed: int, shape: tuple[int, int, int]) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.constants = [], {}
        self.name, self.shape = "x", shape
        self.images = [("x", shape)]

    def constant(self, array) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(
            (self.rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        )

    def node(self, op: str, inputs, count: int = 1, **attributes) -> list[str]:
        outputs = [f"t{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))
        return outputs

    def put(self, name: str, shape: tuple[int, int, int]) -> None:
        self.name, self.shape = name, shape
        self.images.append((name, shape))

    def step(self, kind: str, turn: int) -> None:
        getattr(self, kind)(turn)

    def conv(self, turn: int) -> None:
        c, h, w = self.shape
        k, out = 1 + turn % 3, 1 + turn % 5
        pads = [turn % 2, (turn // 2) % 2, (turn // 3) % 2, turn % 2]
        if h + pads[0] + pads[2] < k or w + pads[1] + pads[3] < k:
            return
        inputs = [self.name, self.weights(out, c, k, k), self.weights(out)]
        (name,) = self.node("Conv", inputs, pads=pads)
        self.put(name, (out, h + pads[0] + pads[2] - k + 1, w + pads[1] + pads[3] - k + 1))

    def depthwise(self, turn: int) -> None:
        c, h, w = self.shape
        times = 1 + turn % 2
        (name,) = self.node("Conv", [self.name, self.weights(c * times, 1, 3, 3)], group=c, pads=[1, 1, 1, 1])
        self.put(name, (c * times, h, w))

    def strided(self, turn: int) -> None:
        c, h, w = self.shape
        (name,) = self.node(
            "Conv", [self.name, self.weights(3, c, 3, 3)], pads=[1, 1, 1, 1], strides=[2, 1 + turn % 2]
        )
        self.put(name, (3, (h - 1) // 2 + 1, (w - 1) // (1 + turn % 2) + 1))

    def pool(self, turn: int) -> None:
        c, h, w = self.shape
        (name,) = self.node("MaxPool", [self.name], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 2])
        self.put(name, (c, h, (w - 1) // 2 + 1))

    def average(self, turn: int) -> None:
        attributes = {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": turn % 2}
        (name,) = self.node("AveragePool", [self.name], **attributes)
        self.put(name, self.shape)

    def relu(self, turn: int) -> None:
        self.put(self.node("Relu", [self.name])[0], self.shape)

    def leaky(self, turn: int) -> None:
        self.put(self.node("LeakyRelu", [self.name], alpha=0.1)[0], self.shape)

    def clip(self, turn: int) -> None:
        ends = [self.constant(np.float32(v)) for v in ((0, 6), (-1, 1), (-0.5, 2))[turn % 3]]
        self.put(self.node("Clip", [self.name, *ends])[0], self.shape)

    def add_constant(self, turn: int) -> None:
        c, h, w = self.shape
        shape = [(c, 1, 1), (1, c, h, w), (w,), (h, 1), ()][turn % 5]
        inputs = [self.name, self.weights(*shape)] if shape else [self.name, self.constant(np.float32(0.5))]
        self.put(self.node(("Add", "Mul", "Sub")[turn % 3], inputs)[0], self.shape)

    def add_self(self, turn: int) -> None:
        like = [name for name, shape in self.images if shape == self.shape]
        self.put(self.node("Add", [self.name, like[turn % len(like)]])[0], self.shape)

    def concat(self, turn: int) -> None:
        like = [(name, shape) for name, shape in self.images if shape[1:] == self.shape[1:]]
        other, shape = like[turn % len(like)]
        (name,) = self.node("Concat", [self.name, other], axis=1)
        self.put(name, (self.shape[0] + shape[0], *self.shape[1:]))

    def slice(self, turn: int) -> None:
        axis = 1 + turn % 3
        sizes = list(self.shape)
        if sizes[axis - 1] < 2:
            return
        ends = [self.constant(np.array([v], np.int64)) for v in (1, 1 << 40, axis)]
        (name,) = self.node("Slice", [self.name, *ends])
        sizes[axis - 1] -= 1
        self.put(name, (sizes[0], sizes[1], sizes[2]))

    def pad(self, turn: int) -> None:
        c, h, w = self.shape
        pads = self.constant(np.array([0, 0, 1, 0, 0, turn % 2, 0, 1], np.int64))
        (name,) = self.node("Pad", [self.name, pads], mode="edge" if turn % 3 == 0 else "constant")
        self.put(name, (c + turn % 2, h + 1, w + 1))

    def transpose_back(self, turn: int) -> None:
        (a,) = self.node("Transpose", [self.name], perm=[0, 2, 3, 1])
        (b,) = self.node("Sigmoid", [a])
        (name,) = self.node("Transpose", [b], perm=[0, 3, 2, 1])
        self.put(name, (self.shape[0], self.shape[2], self.shape[1]))

    def shuffle(self, turn: int) -> None:
        c, h, w = self.shape
        if c % 2:
            return
        (a,) = self.node("Reshape", [self.name, self.constant(np.array([0, 2, c // 2, h, w]))])
        (b,) = self.node("Transpose", [a], perm=[0, 2, 1, 3, 4])
        self.put(self.node("Reshape", [b, self.constant(np.array([0, c, h, w]))])[0], self.shape)

    def resize(self, turn: int) -> None:
        c, h, w = self.shape
        if h * w > 200:
            return
        modes = [
            ("nearest", "asymmetric"),
            ("linear", "half_pixel"),
            ("linear", "align_corners"),
            ("cubic", "half_pixel"),
        ]
        mode, coordinates = modes[turn % 4]
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates, "nearest_mode": "floor"}
        scales = self.constant(np.array([1, 1, 2, 3], np.float32))
        self.put(self.node("Resize", [self.name, "", scales], **attributes)[0], (c, 2 * h, 3 * w))

    def batch_norm(self, turn: int) -> None:
        c = self.shape[0]
        variance = self.constant(np.abs(self.rng.standard_normal(c)).astype(np.float32) + 0.5)
        inputs = [self.name, *(self.weights(c) for _ in range(3)), variance]
        self.put(self.node("BatchNormalization", inputs)[0], self.shape)

    def softmax(self, turn: int) -> None:
        self.put(self.node("Softmax", [self.name], axis=1 + turn % 3)[0], self.shape)

    def mean_keep(self, turn: int) -> None:
        axes = self.constant(np.array([2, 3], np.int64))
        (gate,) = self.node("ReduceMean", [self.name, axes], keepdims=1)
        self.put(self.node("Mul", [self.name, gate])[0], self.shape)

    def reduce_add(self, turn: int) -> None:
        axis = self.constant(np.array([1 + turn % 3], np.int64))
        (rest,) = self.node("ReduceMax", [self.name, axis], keepdims=1)
        self.put(self.node("Sub", [self.name, rest])[0], self.shape)

    def reshape_there(self, turn: int) -> None:
        c, h, w = self.shape
        (flat,) = self.node("Reshape", [self.name, self.constant(np.array([0, c, -1]))])
        (scaled,) = self.node("Mul", [flat, self.weights(h * w)])
        self.put(self.node("Reshape", [scaled, self.constant(np.array([0, c, h, w]))])[0], self.shape)

    def split(self, turn: int) -> None:
        c = self.shape[0]
        if c < 2:
            return
        sizes = self.constant(np.array([1, c - 1], np.int64))
        first, second = self.node("Split", [self.name, sizes], count=2, axis=1)
        self.put(self.node("Concat", [second, first], axis=1)[0], self.shape)

    def upsample_conv(self, turn: int) -> None:
        c, h, w = self.shape
        if h * w > 200:
            return
        attributes = {"strides": [2, 2], "pads": [turn % 2] * 4, "output_padding": [turn % 2] * 2}
        (name,) = self.node(
            "ConvTranspose", [self.name, self.weights(c, 2, 3, 3), self.weights(2)], **attributes
        )
        grown = [2 * (size - 1) + 3 - 2 * (turn % 2) + turn % 2 for size in (h, w)]
        self.put(name, (2, grown[0], grown[1]))

    def model(self) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *self.images[0][1]])],
            [helper.make_tensor_value_info(self.name, TensorProto.FLOAT, ["N", *self.shape])],
            list(self.constants.values()),
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return from_proto(proto, "random")


@pytest.fixture(scope="module")
def engine(tmp_path_factory) -> Iterator[Child]:
    """One process for all files."""
    first = Grown(0, (1, 2, 2))
    first.relu(0)
    path = tmp_path_factory.mktemp("graphs") / "model.tflite"
    file, options = convert(first.model())
    path.write_bytes(write(file))
    with Child(path, "litert", options=options) as child:
        yield child


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1 << 16),
    shape=st.tuples(st.integers(1, 4), st.integers(2, 7), st.integers(2, 7)),
    steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 11)), min_size=1, max_size=9),
)
def test_random_graphs(seed, shape, steps, engine):
    grown = Grown(seed, shape)
    grown.relu(0)
    for kind, turn in steps:
        grown.step(kind, turn)
    model = grown.model()
    file, options = convert(model)
    assert file.tensors[file.inputs[0]].signature[0] == -1
    engine.path.write_bytes(write(file))
    engine.load(engine.path, options=options)
    for rows in (1, 3):
        feeds = {"x": grown.rng.standard_normal((rows, *shape)).astype(np.float32)}
        found = engine.run(feeds)
        assert run.same(list(found.values()), run.once(model.proto, feeds), tolerance=1e-4)
