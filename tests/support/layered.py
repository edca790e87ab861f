"""Small networks of repeated layers, written as ONNX by hand: transformers, residual and plain stacks."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from farrier_converters.model import Model, from_proto

WORDS, LENGTH = 20, 6


class Stack:
    """Collects nodes and weights; each method returns the tensor that it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float | None = None) -> str:
        scale = shape[-2] ** -0.5 if scale is None and len(shape) > 1 else (scale or 0.1)
        return self.constant(name, (scale * self.rng.standard_normal(shape)).astype(np.float32))

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def dense(self, x: str, name: str, rows: int, columns: int) -> str:
        product = self.node("MatMul", [x, self.weight(f"{name}.w", rows, columns)], f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.b", columns)], f"{name}.sum")

    def norm(self, x: str, name: str, width: int) -> str:
        gamma = self.constant(f"{name}.gamma", (1 + 0.1 * self.rng.standard_normal(width)).astype(np.float32))
        return self.node("LayerNormalization", [x, gamma, self.weight(f"{name}.beta", width)], f"{name}.out")

    def attention(self, x: str, name: str, width: int, heads: int, mask: str) -> str:
        parts = []
        for part in ("q", "k", "v"):
            y = self.dense(x, f"{name}.{part}", width, width)
            shape = self.constant(f"{name}.{part}.shape", np.array([0, 0, heads, width // heads], np.int64))
            y = self.node("Reshape", [y, shape], f"{name}.{part}.heads")
            perm = [0, 2, 3, 1] if part == "k" else [0, 2, 1, 3]
            parts.append(self.node("Transpose", [y], f"{name}.{part}.turned", perm=perm))
        scale = self.constant(f"{name}.scale", np.float32((width // heads) ** -0.5))
        scores = self.node("MatMul", parts[:2], f"{name}.dots")
        scores = self.node("Mul", [scores, scale], f"{name}.scaled")
        scores = self.node("Add", [scores, mask], f"{name}.masked")
        weights = self.node("Softmax", [scores], f"{name}.weights", axis=-1)
        mixed = self.node("MatMul", [weights, parts[2]], f"{name}.mixed")
        mixed = self.node("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        shape = self.constant(f"{name}.flat", np.array([0, 0, width], np.int64))
        return self.dense(self.node("Reshape", [mixed, shape], f"{name}.joined"), f"{name}.o", width, width)

    def model(self, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, list[Any]]) -> Model:
        graph = helper.make_graph(
            self.nodes,
            "layered",
            [helper.make_tensor_value_info(n, t, shape) for n, (t, shape) in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs.items()],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(proto, full_check=True)
        return from_proto(proto, "layered")


def transformer(
    layers: int = 4,
    *,
    width: int = 16,
    heads: int = 2,
    before: bool = True,
    classes: int = 2,
    language: bool = False,
    seed: int = 0,
) -> Model:
    """Return an encoder over word numbers "ids" [N, L]; word 0 is padding, which a mask keeps out of attention.

    `before`: norms come before the sublayers. `language`: logits for each position, else for the mean of them.
    """
    s = Stack(seed)
    zero, one, far = s.constant("zero", np.int64(0)), s.constant("axes", np.array([1, 2], np.int64)), -1e4
    empty = s.node("Cast", [s.node("Equal", ["ids", zero], "empty")], "empty_number", to=TensorProto.FLOAT)
    mask = s.node("Mul", [empty, s.constant("far", np.float32(far))], "mask_row")
    mask = s.node("Unsqueeze", [mask, one], "mask")
    x = s.node("Gather", [s.weight("words", WORDS, width, scale=1.0), "ids"], "embedded")
    x = s.node("Add", [x, s.weight("places", 1, LENGTH, width)], "placed")
    x = s.norm(x, "start", width) if not before else x
    for i in range(layers):
        inner = s.norm(x, f"l{i}.n0", width) if before else x
        x = s.node("Add", [x, s.attention(inner, f"l{i}.attention", width, heads, mask)], f"l{i}.mid")
        x = x if before else s.norm(x, f"l{i}.n0", width)
        inner = s.norm(x, f"l{i}.n1", width) if before else x
        inner = s.node("Relu", [s.dense(inner, f"l{i}.up", width, 2 * width)], f"l{i}.relu")
        x = s.node("Add", [x, s.dense(inner, f"l{i}.down", 2 * width, width)], f"l{i}.end")
        x = x if before else s.norm(x, f"l{i}.n1", width)
    x = s.norm(x, "final", width) if before else x
    ids = {"ids": (TensorProto.INT64, ["N", LENGTH])}
    if language:
        s.node("MatMul", [x, s.weight("head", width, WORDS)], "logits")
        return s.model(ids, {"logits": ["N", LENGTH, WORDS]})
    x = s.node("ReduceMean", [x], "pooled", axes=[1], keepdims=0)
    s.node("Gemm", [x, s.weight("head", width, classes), s.weight("head.b", classes)], "logits")
    return s.model(ids, {"logits": ["N", classes]})


def residual(
    stages: tuple[int, ...] = (8, 8, 8, 16, 16), *, classes: int = 4, seed: int = 0, side: int = 8
) -> Model:
    """Return a residual convolution net over "x" [N, 3, side, side]: one block per width, halving where it grows."""
    s = Stack(seed)

    def conv(x: str, name: str, a: int, b: int, *, stride: int = 1, size: int = 3) -> str:
        weight = s.weight(f"{name}.w", b, a, size, size, scale=(a * size * size) ** -0.5)
        pads = [size // 2] * 4
        return s.node("Conv", [x, weight, s.weight(f"{name}.b", b)], name, strides=[stride] * 2, pads=pads)

    last = stages[0]
    x = s.node("Relu", [conv("x", "stem", 3, last)], "stem.relu")
    for i, width in enumerate(stages):
        stride = 1 + (width != last)
        y = s.node("Relu", [conv(x, f"b{i}.c0", last, width, stride=stride)], f"b{i}.r0")
        y = conv(y, f"b{i}.c1", width, width)
        short = x if stride == 1 else conv(x, f"b{i}.short", last, width, stride=2, size=1)
        x = s.node("Relu", [s.node("Add", [y, short], f"b{i}.add")], f"b{i}.r1")
        last = width
    x = s.node("Flatten", [s.node("GlobalAveragePool", [x], "pool")], "flat")
    s.node("Gemm", [x, s.weight("head.w", last, classes), s.weight("head.b", classes)], "logits")
    return s.model({"x": (TensorProto.FLOAT, ["N", 3, side, side])}, {"logits": ["N", classes]})


def dense(widths: tuple[int, ...] = (5, 16, 16, 16, 3), *, seed: int = 0) -> Model:
    """Return a plain stack of dense layers with Relu between them, over "x" [N, widths[0]]."""
    s = Stack(seed)
    x = "x"
    for i, (a, b) in enumerate(pairwise(widths)):
        final = i == len(widths) - 2
        x = s.node(
            "Gemm",
            [x, s.weight(f"d{i}.w", a, b), s.weight(f"d{i}.b", b)],
            "logits" if final else f"d{i}",
        )
        x = x if final else s.node("Relu", [x], f"r{i}")
    return s.model({"x": (TensorProto.FLOAT, ["N", widths[0]])}, {"logits": ["N", widths[-1]]})


def words(rows: int, seed: int = 0) -> np.ndarray:
    """Return [rows, LENGTH] int64 word numbers; some rows end in padding."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, WORDS, (rows, LENGTH))
    lengths = rng.integers(2, LENGTH + 1, (rows, 1))
    return np.where(np.arange(LENGTH) < lengths, ids, 0)
