"""Small TFLite graphs as plain data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from farrier_converters.tflite.file import Operator, Tensor, TfliteFile
from farrier_converters.tflite.versions import versioned

SCALE, WEIGHT_SCALE = 0.05, 0.01
IMAGE = (1, 6, 8, 4)
POOL = {"filter_w": 2, "filter_h": 2, "stride_w": 2, "stride_h": 2}
UNIT = {"stride_w": 1, "stride_h": 1}
# operator, constants behind the image (a string is the shape of weights, a tuple a further image), result, options
CASES: list[tuple[str, list[Any], tuple[int, ...], dict[str, Any]]] = [
    ("ADD", [IMAGE], IMAGE, {}),
    ("SUB", [IMAGE], IMAGE, {"activation": 1}),
    ("MUL", ["4"], IMAGE, {}),
    ("DIV", [IMAGE], IMAGE, {}),
    ("MAXIMUM", [IMAGE], IMAGE, {}),
    ("MINIMUM", [IMAGE], IMAGE, {}),
    ("SQUARED_DIFFERENCE", [IMAGE], IMAGE, {}),
    ("CONV_2D", ["5x3x3x4", 5], (1, 6, 8, 5), UNIT),
    ("DEPTHWISE_CONV_2D", ["1x3x3x4", 4], IMAGE, {**UNIT, "multiplier": 1}),
    ("AVERAGE_POOL_2D", [], (1, 3, 4, 4), POOL),
    ("MAX_POOL_2D", [], (1, 3, 4, 4), POOL),
    ("MAX_POOL_2D", [], (1, 3, 4, 4), {**POOL, "filter_w": 1, "filter_h": 1}),
    ("CONCATENATION", [IMAGE], (1, 6, 8, 8), {"axis": 3}),
    ("CONCATENATION", [IMAGE] * 4, (1, 6, 8, 20), {"axis": 3}),
    ("CONCATENATION", [IMAGE] * 5, (1, 6, 8, 24), {"axis": 3}),
    ("MEAN", [[1, 2]], (1, 1, 1, 4), {"keep_dims": 1}),
    ("MEAN", [[3]], (1, 6, 8), {}),
    ("SUM", [[1, 2]], (1, 4), {}),
    ("REDUCE_MAX", [[2]], (1, 6, 4), {}),
    ("RESHAPE", [[1, 192]], (1, 192), {}),
    ("SQUEEZE", [], (6, 8, 4), {"axes": [0]}),
    ("EXPAND_DIMS", [[1]], (1, 1, 6, 8, 4), {}),
    ("PAD", [[[0, 0], [1, 1], [1, 1], [0, 0]]], (1, 8, 10, 4), {}),
    ("MIRROR_PAD", [[[0, 0], [1, 1], [1, 1], [0, 0]]], (1, 8, 10, 4), {}),
    ("RESIZE_BILINEAR", [[12, 16]], (1, 12, 16, 4), {"half_pixel": 1}),
    ("RESIZE_NEAREST_NEIGHBOR", [[12, 16]], (1, 12, 16, 4), {}),
    ("TRANSPOSE", [[0, 2, 1, 3]], (1, 8, 6, 4), {}),
    ("SLICE", [[0, 1, 2, 0], [1, 3, 4, 4]], (1, 3, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 4, 6, 4], [1, 1, 1, 1]], (1, 3, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 5, 6, 4], [1, 2, 1, 1]], (1, 2, 4, 4), {}),
    ("STRIDED_SLICE", [[0, 1, 2, 0], [1, 4, 6, 4], [1, 1, 1, 1]], (1, 4, 4), {"shrink_axis_mask": 2}),
    ("GATHER", [[0, 1]], (1, 6, 8, 2), {"axis": 3}),
    ("SPACE_TO_DEPTH", [], (1, 3, 4, 16), {"block": 2}),
    ("DEPTH_TO_SPACE", [], (1, 12, 16, 1), {"block": 2}),
    ("LOGISTIC", [], IMAGE, {"scale": 1 / 256}),
    ("TANH", [], IMAGE, {"scale": 1 / 128}),
    ("RELU", [], IMAGE, {}),
    ("RELU6", [], IMAGE, {}),
    ("ELU", [], IMAGE, {}),
    ("HARD_SWISH", [], IMAGE, {}),
    ("LEAKY_RELU", [], IMAGE, {"alpha": 0.1}),
    ("LEAKY_RELU", [], IMAGE, {"alpha": 0.001}),
    ("GELU", [], IMAGE, {}),
    ("EXP", [], IMAGE, {}),
    ("PRELU", ["4"], IMAGE, {}),
    ("ARG_MAX", [3], (1, 6, 8), {"out": "int32", "type": 2}),
]


@dataclass
class Net:
    """A graph in the making; `dtype` is that of activations, and weights and biases follow from it."""

    dtype: str = "int8"
    tensors: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        dtype: str | None = None,
        data: np.ndarray | None = None,
        scale: float | None = SCALE,
    ) -> int:
        dtype = dtype or self.dtype
        scaled = scale is not None and dtype not in ("float32", "int64", "bool")
        middle = 128 if dtype == "uint8" else 0
        self.tensors.append(
            Tensor(
                len(self.tensors),
                f"t{len(self.tensors)}",
                dtype,
                tuple(shape),
                tuple(shape),
                data,
                np.array([scale] if scaled else [], np.float32),
                np.array([middle] if scaled else [], np.int64),
                0,
                variable=False,
                sparse=False,
            )
        )
        return len(self.tensors) - 1

    def input(self, shape: Sequence[int], **more: Any) -> int:
        self.inputs.append(self.tensor(shape, **more))
        return self.inputs[-1]

    def constant(self, value: Any, dtype: str = "int32", scale: float | None = None) -> int:
        array = np.asarray(value, dtype)
        return self.tensor(array.shape, dtype, array, scale)

    def weights(self, *shape: int) -> int:
        if self.dtype == "float32":
            return self.constant(np.full(shape, 0.1), "float32")
        return self.constant(np.full(shape, 138 if self.dtype == "uint8" else 10), self.dtype, WEIGHT_SCALE)

    def bias(self, size: int) -> int:
        if self.dtype == "float32":
            return self.constant(np.zeros(size), "float32")
        return self.constant(np.zeros(size), "int32", SCALE * WEIGHT_SCALE)

    def add(self, op: str, inputs: Sequence[int], *shapes: Sequence[int], **options: Any) -> int:
        """Add an operator with one output for each shape; returns the first. `out` and `scale` are of the outputs."""
        dtype, scale = options.pop("out", None), options.pop("scale", SCALE)
        outputs = tuple(self.tensor(shape, dtype, scale=scale) for shape in shapes)
        self.operators.append(Operator(len(self.operators), op, tuple(inputs), outputs, options))
        return outputs[0]

    def conv(self, x: int, channels: int, **options: Any) -> int:
        *outer, depth = self.tensors[x].shape
        inputs = [x, self.weights(channels, 1, 1, depth), self.bias(channels)]
        return self.add("CONV_2D", inputs, [*outer, channels], **{"stride_w": 1, "stride_h": 1, **options})

    def file(self, *outputs: int) -> TfliteFile:
        ends = outputs or self.operators[-1].outputs
        return versioned(
            TfliteFile(tuple(self.tensors), tuple(self.operators), tuple(self.inputs), tuple(ends))
        )


@pytest.fixture
def net() -> Callable[..., Net]:
    """Start a graph: net("int8")."""
    return Net


def add_case(net: Net, case: tuple[str, list[Any], tuple[int, ...], dict[str, Any]]) -> int:
    op, others, result, options = case
    inputs = [net.input(IMAGE)]
    for other in others:
        if isinstance(other, str):
            inputs.append(net.weights(*map(int, other.split("x"))))
        elif isinstance(other, tuple):
            inputs.append(net.input(other))
        elif isinstance(other, int) and op != "ARG_MAX":
            inputs.append(net.bias(other))
        else:
            inputs.append(net.constant(other))
    return net.add(op, inputs, result, **options)


@pytest.fixture
def single_operators() -> Callable[[str], list[TfliteFile]]:
    """Files of one operator each, with activations of a type."""

    def make(dtype: str) -> list[TfliteFile]:
        nets = [Net(dtype) for _ in CASES]
        for one, case in zip(nets, CASES, strict=True):
            add_case(one, case)
        return [one.file() for one in nets]

    return make


@pytest.fixture
def operators_side_by_side() -> TfliteFile:
    """One int8 file with all of these operators beside each other."""
    whole = Net()
    return whole.file(*(add_case(whole, case) for case in CASES))
