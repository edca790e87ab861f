"""One constant instead of many: what is stored alike is stored together, and cut apart when the engine loads the file.

A node and a constant cost about a hundred bytes each, as much as 200 weights of 4 bits. So scales, the weights that
widen at load, and small float constants are each kept in one tensor, and only Split knows the pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..graph.edit import Graph

FLOAT = onnx.TensorProto.FLOAT
SPLIT_OPSET = 13  # the first that takes its sizes as an input


class Writer:
    """Adds constants of any type, and nodes without names: they are no operators of the model."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.shared: dict[tuple[object, ...], str] = {}

    def node(self, op: str, inputs: Sequence[str], result: str, **attributes: Any) -> str:
        """Add a node, and return the name of its result: `result`, or the first free name after it."""
        result = self.graph.fresh(result)
        self.graph.nodes.append(helper.make_node(op, list(inputs), [result], **attributes))
        return result

    def named(self, op: str, inputs: Sequence[str], result: str, **attributes: Any) -> None:
        """Add a node that makes a tensor whose name is taken: that of a constant that it replaces."""
        self.graph.nodes.append(helper.make_node(op, list(inputs), [result], **attributes))

    def raw(self, name: str, kind: int, shape: Sequence[int], content: bytes) -> str:
        """Store an initializer of a type that numpy lacks."""
        name = self.graph.fresh(name)
        tensor = onnx.TensorProto(name=name, data_type=kind, dims=shape, raw_data=content)
        self.graph.initializers[name] = tensor
        return name

    def constant(self, name: str, value: np.ndarray) -> str:
        """Store a small constant once."""
        key = (name, value.dtype.str, value.shape, value.tobytes())
        if key not in self.shared:
            self.shared[key] = self.graph.add_constant(name, value)
        return self.shared[key]

    def shape(self, sizes: Sequence[int]) -> str:
        """Store a shape once."""
        return self.constant("shape", np.array(sizes, np.int64))

    def cast(self, source: str, kind: int = FLOAT) -> str:
        """Widen a constant when the engine loads it."""
        return self.node("Cast", [source], f"{source}_w", to=kind)

    def split(self, whole: str, pieces: Sequence[str], sizes: Sequence[int]) -> None:
        """Cut a tensor along its first axis into pieces with these names."""
        if len(pieces) == 1:
            self.graph.nodes.append(helper.make_node("Identity", [whole], list(pieces)))
            return
        self.graph.nodes.append(helper.make_node("Split", [whole, self.shape(sizes)], list(pieces), axis=0))


class Pool:
    """Arrays that will be stored as one, along their first axis."""

    def __init__(self, writer: Writer, name: str) -> None:
        self.writer = writer
        self.name = name
        self.pieces: list[str] = []
        self.arrays: list[np.ndarray] = []

    def add(self, array: np.ndarray) -> str:
        """Take an array; return the name under which its float form can be read."""
        self.pieces.append(self.writer.graph.fresh(f"{self.name}_{len(self.pieces)}"))
        self.arrays.append(array)
        return self.pieces[-1]

    def whole(self) -> np.ndarray:
        """Return all arrays as one."""
        return np.concatenate(self.arrays)

    def cut(self, wide: str) -> None:
        """Cut the float form of the whole into the pieces."""
        self.writer.split(wide, self.pieces, [len(array) for array in self.arrays])
