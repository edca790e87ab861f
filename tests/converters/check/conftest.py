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
BIASES = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


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
