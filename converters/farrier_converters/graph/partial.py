"""What is known about vectors of sizes that a graph computes from its tensors' shapes: some elements, or all."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from .edit import Graph, attribute, standard
from .types import TensorType

MAX_ELEMENTS = 64  # of a vector of sizes
MAX_DEPTH = 32  # of operators on the way from a shape
INTEGERS = (onnx.TensorProto.INT64, onnx.TensorProto.INT32)


@dataclass(frozen=True)
class Unknown:
    """A size that is known only at run time; equal ones are equal numbers."""

    tensor: str
    index: int


Size = int | Unknown


@dataclass(frozen=True)
class Sizes:
    """A number (`vector` false, one element) or a vector of sizes."""

    elements: tuple[Size, ...]
    vector: bool = True

    @property
    def known(self) -> tuple[int, ...] | None:
        """All elements, where every one of them is known."""
        found = tuple(size for size in self.elements if isinstance(size, int))
        return found if len(found) == len(self.elements) else None


class Evaluator:
    """Follows sizes through a graph whose types are known."""

    def __init__(self, graph: Graph, types: dict[str, TensorType]) -> None:
        self.graph, self.types = graph, types
        self._found: dict[str, Sizes | None] = {}

    def sizes(self, name: str, depth: int = MAX_DEPTH) -> Sizes | None:
        """Return what is known of a tensor, None for anything but integers computed from constants and shapes."""
        if name not in self._found:
            self._found[name] = self._evaluate(name, depth) if depth else None
        return self._found[name]

    def _evaluate(self, name: str, depth: int) -> Sizes | None:
        tensor = self.graph.initializers.get(name)
        if tensor is not None:
            small = len(tensor.dims) <= 1 and (not tensor.dims or tensor.dims[0] <= MAX_ELEMENTS)
            value = self.graph.constant(name) if small and tensor.data_type in INTEGERS else None
            return (
                None if value is None else Sizes(tuple(int(v) for v in value.reshape(-1)), bool(value.ndim))
            )
        node = self.graph.producer.get(name)
        if node is None or not standard(node, *RULES):
            return None
        return RULES[node.op_type](self, node, depth - 1)

    def constants(self, node: onnx.NodeProto, position: int, name: str, depth: int) -> tuple[int, ...] | None:
        """Return integers that are an input, or an attribute in older operator sets."""
        if len(node.input) > position and node.input[position]:
            found = self.sizes(node.input[position], depth)
            return None if found is None else found.known
        given = attribute(node, name)
        return None if given is None else tuple(given)


def _shape(evaluator: Evaluator, node: onnx.NodeProto, _depth: int) -> Sizes | None:
    kind = evaluator.types.get(node.input[0])
    if kind is None or kind.shape is None or len(kind.shape) > MAX_ELEMENTS:
        return None
    every = [Unknown(node.input[0], i) if size is None else size for i, size in enumerate(kind.shape)]
    end = attribute(node, "end")
    return Sizes(tuple(every[slice(attribute(node, "start", 0), end)]))


def _gather(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    data, index = (evaluator.sizes(name, depth) for name in node.input)
    places = None if index is None else index.known
    if data is None or not data.vector or places is None or index is None or attribute(node, "axis", 0) != 0:
        return None
    if any(not -len(data.elements) <= place < len(data.elements) for place in places):
        return None
    return Sizes(tuple(data.elements[place] for place in places), index.vector)


def _slice(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    data = evaluator.sizes(node.input[0], depth)
    starts, ends = (evaluator.constants(node, p, n, depth) for p, n in ((1, "starts"), (2, "ends")))
    steps = evaluator.constants(node, 4, "steps", depth) if len(node.input) > 4 and node.input[4] else (1,)
    if data is None or not data.vector or starts is None or ends is None or steps is None:
        return None
    if len(starts) != 1 or len(ends) != 1 or len(steps) != 1 or steps[0] < 1:
        return None
    return Sizes(data.elements[starts[0] : ends[0] : steps[0]])


def _concat(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    elements: list[Size] = []
    for name in node.input:
        part = evaluator.sizes(name, depth)
        kind = evaluator.types.get(name)
        if part is None:
            count = (
                kind.shape[0]
                if kind is not None and kind.shape is not None and len(kind.shape) == 1
                else None
            )
            if count is None or count > MAX_ELEMENTS:
                return None
            part = Sizes(tuple(Unknown(name, i) for i in range(count)))
        elements += part.elements
    return Sizes(tuple(elements)) if len(elements) <= MAX_ELEMENTS else None


def _unsqueeze(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    data, axes = evaluator.sizes(node.input[0], depth), evaluator.constants(node, 1, "axes", depth)
    return Sizes(data.elements) if data is not None and not data.vector and axes in ((0,), (-1,)) else None


def _squeeze(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    data = evaluator.sizes(node.input[0], depth)
    return Sizes(data.elements, vector=False) if data is not None and len(data.elements) == 1 else None


def _cast(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    return evaluator.sizes(node.input[0], depth) if attribute(node, "to") in INTEGERS else None


def _arithmetic(evaluator: Evaluator, node: onnx.NodeProto, depth: int) -> Sizes | None:
    left, right = (evaluator.sizes(name, depth) for name in node.input)
    if left is None or right is None:
        return None
    count = max(len(left.elements), len(right.elements))
    if any(len(side.elements) not in (1, count) for side in (left, right)):
        return None
    pairs = zip(*(side.elements * (count // len(side.elements)) for side in (left, right)), strict=True)
    elements = [
        _result(node.op_type, a, b) if isinstance(a, int) and isinstance(b, int) else None for a, b in pairs
    ]
    whole = tuple(Unknown(node.output[0], i) if size is None else size for i, size in enumerate(elements))
    return Sizes(whole, left.vector or right.vector)


def _result(op: str, left: int, right: int) -> int | None:
    if op == "Div":
        return left // right if left >= 0 and right > 0 else None
    value = left + right if op == "Add" else left - right if op == "Sub" else left * right
    return value if abs(value) < 1 << 53 else None


RULES = {
    "Shape": _shape,
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Cast": _cast,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), _arithmetic),
}
