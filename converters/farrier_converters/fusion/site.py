"""A graph as rules see it: who makes a tensor, what is constant, what shape things have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..graph.edit import SMALL_ELEMENTS, Graph, attribute, standard
from ..graph.types import FLOAT, TensorType, infer


class Site:
    """An open graph with the types of its tensors as they were when it was opened.

    `newest` is the operator set up to which rules may bring operators in: the graph's own, or an older one where what
    will run the graph knows no newer.
    """

    def __init__(self, graph: Graph, *, newest: int = 0) -> None:
        self.graph = graph
        self.opset = graph.opset
        self.newest = newest or graph.opset
        self.types: dict[str, TensorType] = infer(graph.without_weights())

    def maker(self, name: str, *ops: str) -> onnx.NodeProto | None:
        """Return the node that makes a tensor, if it is one of these standard operators."""
        node = self.graph.producer.get(name)
        return node if node is not None and standard(node, *ops) else None

    def reader(self, name: str, *ops: str) -> onnx.NodeProto | None:
        """Return the only reader of a tensor, if it is one of these standard operators."""
        node = self.graph.only_reader(name)
        return node if node is not None and standard(node, *ops) else None

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of an initializer."""
        return self.graph.constant(name) if name else None

    def numbers(self, node: onnx.NodeProto, position: int, name: str) -> list[int] | None:
        """Return integers that are a constant input, or an attribute in older operator sets; None otherwise."""
        if len(node.input) > position and node.input[position]:
            value = self.constant(node.input[position])
            return None if value is None else [int(v) for v in value.reshape(-1)]
        found = attribute(node, name)
        return None if found is None else [int(v) for v in found]

    def scalar(self, name: str) -> float | None:
        """Return the number that a float initializer of one element holds."""
        tensor = self.graph.initializers.get(name)
        if tensor is None or any(size != 1 for size in tensor.dims) or tensor.data_type not in FLOATS:
            return None
        value = self.graph.constant(name)
        return None if value is None else float(value.reshape(()))

    def with_scalar(self, node: onnx.NodeProto) -> tuple[str, float, bool] | None:
        """Return (variable, number, whether the number comes first) for a node of a tensor and a number.

        None where the number has so many dimensions that the result has more than the tensor.
        """
        if len(node.input) != 2:
            return None
        for position in (1, 0):
            number = self.scalar(node.input[position])
            other = node.input[1 - position]
            if number is not None and other not in self.graph.initializers:
                rank = self.rank(other)
                dims = len(self.graph.initializers[node.input[position]].dims)
                fits = dims == 0 or (rank is not None and dims <= rank)
                return (other, number, position == 0) if fits else None
        return None

    def shape(self, name: str) -> tuple[int | None, ...] | None:
        """Return a tensor's shape, None inside it for free dimensions."""
        kind = self.types.get(name)
        return None if kind is None else kind.shape

    def fixed(self, name: str) -> tuple[int, ...] | None:
        """Return a tensor's shape where every dimension of it is known."""
        shape = self.shape(name)
        known = [size for size in shape or () if size is not None]
        return None if shape is None or len(known) != len(shape) else tuple(known)

    def rank(self, name: str) -> int | None:
        """Return the number of a tensor's dimensions."""
        shape = self.shape(name)
        return None if shape is None else len(shape)

    def order(self, transpose: onnx.NodeProto) -> list[int]:
        """Return a Transpose's order of axes, which is backwards where it names none; empty where it is not known."""
        given = attribute(transpose, "perm")
        return list(given) if given is not None else list(range(self.rank(transpose.input[0]) or 0))[::-1]

    def shared(self, name: str) -> bool:
        """Say whether a large constant has to stay for others: changed for one reader, the file would hold it twice."""
        tensor = self.graph.initializers.get(name)
        large = tensor is not None and math.prod(tensor.dims) > SMALL_ELEMENTS
        return large and (len(self.graph.readers.get(name, [])) > 1 or self.graph.kept(name))

    def floats(self, name: str) -> bool:
        """Say whether a tensor is of float32."""
        kind = self.types.get(name)
        return kind is not None and kind.dtype == FLOAT

    def closed(self, nodes: Iterable[onnx.NodeProto], results: Sequence[str]) -> bool:
        """Say whether of all that these nodes make, only `results` is read outside of them."""
        inside = {id(node) for node in nodes}
        for node in nodes:
            for name in node.output:
                if not name or name in results:
                    continue
                outside = any(id(reader) not in inside for reader in self.graph.readers.get(name, []))
                if outside or self.graph.kept(name):
                    return False
        return True

    def private(self, nodes: Sequence[onnx.NodeProto], root: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Return those of `nodes` whose results lead to `root` alone; `nodes` are in the graph's order."""
        inside = {id(root): root}
        for node in reversed(nodes):
            if self.closed(
                (node, *inside.values()), [name for other in inside.values() for name in other.output]
            ):
                inside[id(node)] = node
        return [node for node in nodes if id(node) in inside and node is not root]

    def node(
        self, op: str, inputs: Iterable[str], outputs: Iterable[str], **attributes: Any
    ) -> onnx.NodeProto:
        """Make a standard node under a free name; it is not in the graph yet."""
        results = list(outputs)
        name = self.graph.fresh(f"{results[0]}/{op}")
        return helper.make_node(op, list(inputs), results, name=name, **attributes)


FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def copy(node: onnx.NodeProto) -> onnx.NodeProto:
    """Return a copy of a node that can be changed."""
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made
