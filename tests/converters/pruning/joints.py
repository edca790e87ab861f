"""Random graphs whose channels are split, joined, shuffled and mixed in every way that the rules follow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.model import Model, from_proto

SIDE = 4  # of every map
WIDTHS = (2, 4, 6, 8, 12)
UNARY = ("Relu", "Sigmoid", "Tanh", "Softplus", "Identity", "HardSwish", "Neg")


@dataclass(frozen=True)
class Map:
    """A tensor [batch, channels, SIDE, SIDE]."""

    name: str
    channels: int


@dataclass
class Builder:
    """A graph in the making; `draw` makes the choices."""

    draw: Callable[[Any], Any]
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    maps: list[Map] = field(default_factory=list)
    shared: list[tuple[str, int, int]] = field(
        default_factory=list
    )  # weights of 1 x 1 that may be used again

    def op(self, name: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        made = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(
            helper.make_node(name, list(inputs), made, name=f"n{len(self.nodes)}", **attributes)
        )
        return made[0] if outputs == 1 else made

    def weight(self, *shape: int) -> str:
        scale = 1 / np.sqrt(max(np.prod(shape[1:]), 1)) if len(shape) > 1 else 0.5
        return self.constant(self.rng.normal(0, scale, shape).astype(np.float32))

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(value)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def any(self) -> Map:
        return self.draw(st.sampled_from(self.maps[-4:]))

    def one_of(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def add(self, name: str, channels: int) -> None:
        self.maps.append(Map(name, channels))


def dividers(number: int) -> list[int]:
    return [n for n in range(2, number + 1) if number % n == 0] or [1]


def conv(b: Builder) -> None:
    x, out, size = b.any(), b.one_of(*WIDTHS), b.one_of(1, 3)
    weight = b.weight(out, x.channels, size, size)
    if size == 1:
        b.shared.append((weight, x.channels, out))
    bias = [b.weight(out)] if b.draw(st.booleans()) else []
    b.add(b.op("Conv", x.name, weight, *bias, pads=[size // 2] * 4), out)


def conv_again(b: Builder) -> None:
    x = b.any()
    fitting = [(weight, out) for weight, read, out in b.shared if read == x.channels]
    if fitting:
        weight, out = b.one_of(*fitting)
        b.add(b.op("Conv", x.name, weight), out)


def grouped(b: Builder) -> None:
    x = b.any()
    groups = b.one_of(*dividers(x.channels))
    out = groups * b.one_of(1, 2, 3)
    b.add(b.op("Conv", x.name, b.weight(out, x.channels // groups, 1, 1), b.weight(out), group=groups), out)


def transposed(b: Builder) -> None:
    x = b.any()
    groups = b.one_of(1, *dividers(x.channels))
    each = b.one_of(1, 2, 4)
    weight = b.weight(x.channels, each, 3, 3)
    b.add(b.op("ConvTranspose", x.name, weight, group=groups, pads=[1] * 4), each * groups)


def unary(b: Builder) -> None:
    x = b.any()
    b.add(b.op(b.one_of(*UNARY), x.name), x.channels)


def batch_norm(b: Builder) -> None:
    x = b.any()
    vectors = [b.weight(x.channels) for _ in range(3)]
    spread = b.constant(b.rng.uniform(0.5, 1.5, x.channels).astype(np.float32))
    b.add(b.op("BatchNormalization", x.name, *vectors, spread), x.channels)


def scaled(b: Builder) -> None:
    x = b.any()
    shape = b.one_of((x.channels, 1, 1), (1, x.channels, SIDE, SIDE), (1,), (SIDE, SIDE))
    b.add(b.op(b.one_of("Mul", "Add", "Max"), x.name, b.weight(*shape)), x.channels)


def joined(b: Builder) -> None:
    x = b.any()
    y = b.one_of(*(y for y in b.maps if y.channels == x.channels))
    b.add(b.op(b.one_of("Add", "Mul", "Sub", "Min"), x.name, y.name), x.channels)


def concat(b: Builder) -> None:
    parts = [b.any() for _ in range(b.one_of(2, 3))]
    channels = sum(part.channels for part in parts)
    if channels <= 24:
        b.add(b.op("Concat", *(part.name for part in parts), axis=1), channels)


def split(b: Builder) -> None:
    x = b.any()
    if x.channels == 1:
        return
    first = b.draw(st.integers(1, x.channels - 1))
    made = b.op("Split", x.name, b.ints(first, x.channels - first), outputs=2, axis=1)
    for name, channels in zip(made, (first, x.channels - first), strict=True):
        if channels > 1:
            b.add(name, channels)


def sliced(b: Builder) -> None:
    x, step = b.any(), b.one_of(1, 2, -1)
    start, end = sorted((b.draw(st.integers(0, x.channels)), b.draw(st.integers(0, x.channels))))
    if step < 0:
        start, end = end, start
    chosen = range(x.channels)[start:end:step]
    if len(chosen) > 1:
        axes = [b.ints(1), b.ints(step)]
        b.add(b.op("Slice", x.name, b.ints(start), b.ints(end), *axes), len(chosen))


def gathered(b: Builder) -> None:
    x = b.any()
    chosen = b.draw(st.lists(st.integers(-x.channels, x.channels - 1), min_size=2, max_size=12))
    b.add(b.op("Gather", x.name, b.ints(*chosen), axis=1), len(chosen))


def shuffle(b: Builder) -> None:
    x = b.any()
    groups = b.one_of(*dividers(x.channels))
    dealt = b.op("Reshape", x.name, b.ints(0, groups, x.channels // groups, SIDE, SIDE))
    turned = b.op("Transpose", dealt, perm=[0, 2, 1, 3, 4])
    b.add(
        b.op("Reshape", turned, b.one_of(b.ints(0, -1, SIDE, SIDE), b.ints(0, x.channels, SIDE, SIDE))),
        x.channels,
    )


def folded(b: Builder) -> None:
    """Sum or pick over one of two axes that channels are reshaped to."""
    x = b.any()
    groups = b.one_of(*dividers(x.channels))
    table = b.op("Reshape", x.name, b.ints(0, groups, x.channels // groups, SIDE, SIDE))
    axis = b.one_of(1, 2)
    left = groups if axis == 2 else x.channels // groups
    if left < 2 or groups == 1:
        return
    kind = b.one_of("ReduceSum", "Gather", "Split")
    if kind == "ReduceSum":
        b.add(b.op("ReduceSum", table, b.ints(axis), keepdims=0), left)
    elif kind == "Gather":
        b.add(b.op("Gather", table, b.constant(np.array(0)), axis=axis), left)
    else:
        size = x.channels // left
        made = b.op("Split", table, b.ints(1, size - 1), outputs=2, axis=axis) if size > 1 else [table]
        b.add(b.op("Squeeze", made[0], b.ints(axis)), left)


def padded(b: Builder) -> None:
    x, before, after = b.any(), b.one_of(0, 1, 2), b.one_of(0, 2)
    pads = b.ints(0, before, 0, 0, 0, after, 0, 0)
    b.add(b.op("Pad", x.name, pads), x.channels + before + after)


def gate(b: Builder) -> None:
    x = b.any()
    pooled = b.op("Flatten", b.op("GlobalAveragePool", x.name))
    hidden = b.op("Relu", b.op("Gemm", pooled, b.weight(6, x.channels), b.weight(6), transB=1))
    made = b.op("Sigmoid", b.op("Gemm", hidden, b.weight(6, x.channels)))
    b.add(b.op("Mul", x.name, b.op("Reshape", made, b.ints(0, x.channels, 1, 1))), x.channels)


def channels_last(b: Builder) -> None:
    x, out = b.any(), b.one_of(*WIDTHS)
    last = b.op("Transpose", x.name, perm=[0, 2, 3, 1])
    last = b.op("LayerNormalization", last, b.weight(x.channels), b.weight(x.channels), axis=-1)
    made = b.op("Add", b.op("MatMul", last, b.weight(x.channels, out)), b.weight(out))
    b.add(b.op("Transpose", made, perm=[0, 3, 1, 2]), out)


def group_norm(b: Builder) -> None:
    x = b.any()
    groups = b.one_of(*dividers(x.channels))
    one, zero = (b.constant(np.full(groups, value, np.float32)) for value in (1, 0))
    flat = b.op("Reshape", x.name, b.ints(0, groups, -1))
    made = b.op("InstanceNormalization", flat, one, zero)
    made = b.op("Reshape", made, b.ints(0, x.channels, SIDE, SIDE))
    b.add(b.op("Mul", made, b.weight(x.channels, 1, 1)), x.channels)


def statistics(b: Builder) -> None:
    x = b.any()
    kind = b.one_of("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin", "ReduceL2")
    axes = {"axes": [1]} if kind != "ReduceSum" else {}
    given = [b.ints(1)] if kind == "ReduceSum" else []
    b.add(b.op("Mul", x.name, b.op("Tanh", b.op(kind, x.name, *given, keepdims=1, **axes))), x.channels)


def attention(b: Builder) -> None:
    x, heads, size = b.any(), b.one_of(2, 3), b.one_of(2, 4)
    steps = b.op("Transpose", b.op("Reshape", x.name, b.ints(0, x.channels, SIDE * SIDE)), perm=[0, 2, 1])
    width = heads * size
    orders = ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    q, k, v = (
        b.op(
            "Transpose",
            b.op("Reshape", b.op("MatMul", steps, b.weight(x.channels, width)), b.ints(0, 0, heads, size)),
            perm=order,
        )
        for order in orders
    )
    made = b.op("MatMul", b.op("Softmax", b.op("MatMul", q, k), axis=-1), v)
    made = b.op("Reshape", b.op("Transpose", made, perm=[0, 2, 1, 3]), b.ints(0, 0, width))
    made = b.op("Transpose", b.op("MatMul", made, b.weight(width, x.channels)), perm=[0, 2, 1])
    made = b.op("Reshape", made, b.ints(0, x.channels, SIDE, SIDE))
    b.add(b.op("Add", x.name, made), x.channels)


def pixels(b: Builder) -> None:
    x = b.any()
    if x.channels % 4 == 0 and x.channels > 4:
        up = b.op("DepthToSpace", x.name, blocksize=2, mode=b.one_of("DCR", "CRD"))
        b.add(b.op("MaxPool", up, kernel_shape=[2, 2], strides=[2, 2]), x.channels // 4)
    else:
        made = b.op("SpaceToDepth", x.name, blocksize=2)
        b.add(b.op("Resize", made, "", b.constant(np.array([1, 1, 2, 2], np.float32))), 4 * x.channels)


def recurrent(b: Builder) -> None:
    """Rows of pixels are steps; channels and columns together are features."""
    x, hidden = b.any(), b.one_of(4, 6)
    width = x.channels * SIDE
    steps = b.op("Reshape", b.op("Transpose", x.name, perm=[2, 0, 1, 3]), b.ints(SIDE, -1, width))
    weights = [b.weight(1, 3 * hidden, width), b.weight(1, 3 * hidden, hidden), b.weight(1, 6 * hidden)]
    made, _ = b.op("GRU", steps, *weights, outputs=2, hidden_size=hidden)
    made = b.op("Transpose", b.op("Squeeze", made, b.ints(1)), perm=[1, 2, 0])
    b.add(b.op("Expand", b.op("Unsqueeze", made, b.ints(3)), b.ints(1, hidden, SIDE, SIDE)), hidden)


STEPS = (
    conv, conv_again, grouped, transposed, unary, batch_norm, scaled, joined, concat, split, sliced, gathered, shuffle,
    folded, padded, gate, channels_last, group_norm, statistics, attention, pixels, recurrent,
)  # fmt: skip


@st.composite
def graphs(draw: Callable[[Any], Any], most: int = 9) -> Model:
    """Draw a model of input x [batch, 3, SIDE, SIDE] and output y."""
    b = Builder(draw, np.random.default_rng(draw(st.integers(0, 2**16))))
    b.maps.append(Map("x", 3))
    conv(b)
    for step in draw(st.lists(st.sampled_from(STEPS), min_size=1, max_size=most)):
        step(b)
    flat = [b.op("Flatten", x.name) for x in b.maps[-2:]]
    sizes = [x.channels * SIDE * SIDE for x in b.maps[-2:]]
    made = b.op("Concat", *flat, axis=1)
    b.nodes.append(helper.make_node("Gemm", [made, b.weight(5, sum(sizes))], ["y"], transB=1, name="last"))
    graph = helper.make_graph(
        b.nodes,
        "joints",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(value, name) for name, value in b.constants.items()],
    )
    return from_proto(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "joints"
    )
