"""A graph with its subgraphs: every scope, which constants it sees, and who reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from ...graph.edit import standard
from ...model import subgraphs


@dataclass
class Scopes:
    """A model's graphs, outermost first, and names that nothing has yet. Edits are made in place."""

    proto: onnx.ModelProto
    names: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        for graph in self:
            self.names.update(t.name for t in (*graph.initializer, *graph.input, *graph.output))
            self.names.update(name for node in graph.node for name in (*node.input, *node.output))

    def __iter__(self) -> Iterator[onnx.GraphProto]:
        waiting = [self.proto.graph]
        while waiting:
            graph = waiting.pop(0)
            yield graph
            waiting.extend(inner for node in graph.node for inner in subgraphs(node))

    def fresh(self, name: str) -> str:
        """Return `name`, or the first free name after it."""
        candidate, number = name, 1
        while candidate in self.names:
            candidate, number = f"{name}_{number}", number + 1
        self.names.add(candidate)
        return candidate

    def readers(self) -> dict[str, list[onnx.NodeProto]]:
        """Return who reads each name, in any scope; a shadowed name is taken for the same."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for graph in self:
            for node in graph.node:
                for name in dict.fromkeys(node.input):
                    found.setdefault(name, []).append(node)
        return found

    def outputs(self) -> set[str]:
        """Return the names that some graph returns."""
        return {value.name for graph in self for value in graph.output}

    def constants(self) -> dict[str, onnx.TensorProto]:
        """Return the float32 constants that are made in exactly one scope, by name."""
        found: dict[str, onnx.TensorProto] = {}
        twice: set[str] = set()
        for graph in self:
            for name, tensor in _constants(graph):
                if name in found:
                    twice.add(name)
                found[name] = tensor
        inputs = {value.name for graph in self for value in graph.input}
        outer = {tensor.name for tensor in self.proto.graph.initializer}
        return {n: t for n, t in found.items() if n not in twice and (n not in inputs or n in outer)}

    def drop_unread(self, names: set[str]) -> None:
        """Remove those of these constants that nothing reads any more."""
        needed = set(self.readers()) | self.outputs()
        gone = names - needed
        for graph in self:
            kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
            if len(kept) < len(graph.initializer):
                del graph.initializer[:]
                graph.initializer.extend(kept)
            nodes = [n for n in graph.node if not (n.op_type == "Constant" and n.output[0] in gone)]
            if len(nodes) < len(graph.node):
                del graph.node[:]
                graph.node.extend(nodes)
            inputs = [value for value in graph.input if value.name not in gone]
            if len(inputs) < len(graph.input):
                del graph.input[:]
                graph.input.extend(inputs)


def value_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return a constant's values."""
    return numpy_helper.to_array(tensor)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            yield tensor.name, tensor
    for node in graph.node:
        if standard(node, "Constant") and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            if tensor.data_type == onnx.TensorProto.FLOAT:
                yield node.output[0], tensor
