"""An editable copy of an ONNX graph that knows who makes and who reads each tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..model import STANDARD_DOMAINS, Model, from_proto, opset, subgraphs

SMALL_ELEMENTS = 256  # of an initializer whose values may matter to shapes
CONSTANT_FIELDS = ("value", "value_float", "value_floats", "value_int", "value_ints")


class Graph:
    """A model opened for editing; `build` returns the new model, and the old one stays as it was.

    On opening, constants become initializers and initializers stop being inputs, so that there is one place
    to look for a constant. Nodes may be added in any order: `build` sorts them.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        source = model.proto.graph
        self.opset = opset(model.proto)
        self.initializers = {tensor.name: tensor for tensor in source.initializer}
        self.inputs = [value for value in source.input if value.name not in self.initializers]
        self.outputs = [value.name for value in source.output]
        self.nodes: list[onnx.NodeProto] = []
        for original in source.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            if not self._lift(node):
                self.nodes.append(node)
        self._names = all_names(source)
        self.index()

    def index(self) -> None:
        """Find makers and readers again, after an edit."""
        self.producer = {name: node for node in self.nodes for name in node.output if name}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        self.captured: set[str] = set()
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)
            for inner in subgraphs(node):
                self.captured.update(captures(inner))

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of an initializer, or None for anything else."""
        tensor = self.initializers.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def kept(self, name: str) -> bool:
        """Say whether something besides the nodes needs this name: an output or a subgraph."""
        return name in self.outputs or name in self.captured

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads this tensor (once), or None when anything else does too."""
        readers = self.readers.get(name, [])
        if self.kept(name) or len(readers) != 1 or list(readers[0].input).count(name) != 1:
            return None
        return readers[0]

    def fresh(self, name: str) -> str:
        """Return `name`, or the first free name after it."""
        candidate, number = name, 1
        while candidate in self._names:
            candidate, number = f"{name}_{number}", number + 1
        self._names.add(candidate)
        return candidate

    def add_constant(self, name: str, value: np.ndarray) -> str:
        """Store an initializer under a free name like `name`, and return that name."""
        name = self.fresh(name)
        self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def add_node(self, op: str, inputs: Iterable[str], output: str, **attributes: Any) -> onnx.NodeProto:
        """Append a node of the standard domain with one output."""
        node = helper.make_node(op, list(inputs), [output], name=self.fresh(f"{output}/{op}"), **attributes)
        self.nodes.append(node)
        return node

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Drop these nodes (by identity)."""
        gone = {id(node) for node in nodes}
        self.nodes = [node for node in self.nodes if id(node) not in gone]

    def rename_reads(self, old: str, new: str) -> None:
        """Let every node that reads `old` read `new`; subgraphs and outputs keep the old name."""
        for node in self.readers.get(old, []):
            replace(node.input, old, new)

    def swap(self, old: Iterable[onnx.NodeProto], new: Iterable[onnx.NodeProto]) -> None:
        """Put nodes where the last of others was, and keep the index: makers and readers need not be found again."""
        old, new = list(old), list(new)
        gone = {id(node) for node in old}
        last = max(position for position, node in enumerate(self.nodes) if id(node) in gone)
        before = [node for node in self.nodes[:last] if id(node) not in gone]
        self.nodes = [*before, *new, *self.nodes[last + 1 :]]
        if any(True for node in (*old, *new) for _ in subgraphs(node)):
            self.index()
            return
        for node in old:
            for name in filter(None, node.output):
                self.producer.pop(name, None)
            for name in dict.fromkeys(node.input):
                self.readers[name] = [reader for reader in self.readers.get(name, []) if reader is not node]
        for node in new:
            self.producer.update((name, node) for name in node.output if name)
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    def redirect(self, old: str, new: str) -> None:
        """Let every node that reads `old` read `new`, and keep the index; subgraphs and outputs keep the old name."""
        moved = self.readers.pop(old, [])
        for node in moved:
            replace(node.input, old, new)
        known = self.readers.setdefault(new, [])
        known += [node for node in moved if not any(node is other for other in known)]

    def rename(self, old: str, new: str) -> None:
        """Give a tensor that a node makes, and that no output or subgraph needs, another name; keep the index."""
        maker = self.producer.pop(old)
        replace(maker.output, old, new)
        self.producer[new] = maker
        self.redirect(old, new)

    def build(self) -> Model:
        """Return the edited model: nodes sorted, nodes and initializers that nothing needs left out."""
        return from_proto(self._proto(weights=True), self.model.name)

    def without_weights(self) -> onnx.ModelProto:
        """Return what `build` would, with large initializers as inputs without values: for types, and cheap."""
        return self._proto(weights=False)

    def ordered(self) -> list[onnx.NodeProto]:
        """Return the nodes that an output needs, themselves and not copies, sorted topologically."""
        return _live(_sorted(self.nodes), self.outputs)

    def _proto(self, *, weights: bool) -> onnx.ModelProto:
        nodes = self.ordered()
        used = {name for node in nodes for name in reads(node)} | set(self.outputs)
        source = self.model.proto
        proto = onnx.ModelProto()
        proto.CopyFrom(_without_content(source))
        # IR 3 knows no initializers outside of the inputs, opset 13 wants IR 7, and INT4 came with opset 21 and IR 10
        proto.ir_version = max(source.ir_version, 10 if self.opset >= 21 else 7)
        proto.graph.name = source.graph.name or "graph"
        proto.graph.node.extend(nodes)
        proto.graph.sparse_initializer.extend(source.graph.sparse_initializer)
        proto.graph.input.extend(self.inputs)
        for name, tensor in self.initializers.items():
            if name in used:
                add_initializer(proto.graph, tensor, whole=weights)
        proto.graph.output.extend(source.graph.output)
        return proto

    def _lift(self, node: onnx.NodeProto) -> bool:
        if node.op_type != "Constant" or node.domain not in STANDARD_DOMAINS or len(node.attribute) != 1:
            return False
        field = node.attribute[0]
        if field.name not in CONSTANT_FIELDS:
            return False
        tensor = onnx.TensorProto()
        if field.name == "value":
            tensor.CopyFrom(field.t)
        else:
            dtype = np.float32 if "float" in field.name else np.int64
            tensor.CopyFrom(numpy_helper.from_array(np.array(helper.get_attribute_value(field), dtype)))
        tensor.name = node.output[0]
        self.initializers[tensor.name] = tensor
        return True


def add_initializer(graph: onnx.GraphProto, tensor: onnx.TensorProto, *, whole: bool) -> None:
    """Add a constant to a graph; a large one that need not be whole becomes an input: no shape hangs on its values."""
    if whole or math.prod(tensor.dims) <= SMALL_ELEMENTS:
        graph.initializer.append(tensor)
    else:
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Return the value of a node's attribute."""
    for field in node.attribute:
        if field.name == name:
            return helper.get_attribute_value(field)
    return default


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Set or replace a node's attribute."""
    keep = [field for field in node.attribute if field.name != name]
    del node.attribute[:]
    node.attribute.extend([*keep, helper.make_attribute(name, value)])


def replace(names: Any, old: str, new: str) -> None:
    """Replace a name in a node's list of inputs or outputs."""
    for position, name in enumerate(names):
        if name == old:
            names[position] = new


def standard(node: onnx.NodeProto, *ops: str) -> bool:
    """Say whether the node is one of these operators of the standard domain."""
    return node.op_type in ops and node.domain in STANDARD_DOMAINS


def captures(graph: onnx.GraphProto) -> set[str]:
    """Return the outer names that a subgraph reads."""
    made = {t.name for t in graph.initializer} | {v.name for v in graph.input}
    made.update(name for node in graph.node for name in node.output)
    read = {name for node in graph.node for name in reads(node)} | {v.name for v in graph.output}
    return read - made


def reads(node: onnx.NodeProto) -> set[str]:
    """Return every tensor that a node needs, those of its subgraphs included."""
    names = {name for name in node.input if name}
    for inner in subgraphs(node):
        names |= captures(inner)
    return names


def all_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name of a graph: of tensors and nodes, in its subgraphs too."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update((node.name, *node.input, *node.output))
        for inner in subgraphs(node):
            names |= all_names(inner)
    return names


def _sorted(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Sort topologically; nodes that are already in order keep it."""
    maker = {name: position for position, node in enumerate(nodes) for name in node.output if name}
    needs = [sorted({maker[name] for name in reads(node) if name in maker}) for node in nodes]
    order: list[onnx.NodeProto] = []
    done = [False] * len(nodes)
    for start in range(len(nodes)):
        stack = [start]
        while stack:
            missing = [n for n in needs[stack[-1]] if not done[n]]
            if missing:
                stack.extend(reversed(missing))
                continue
            position = stack.pop()
            if not done[position]:
                done[position] = True
                order.append(nodes[position])
    return order


def _live(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    wanted = set(outputs)
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted |= reads(node)
            kept.append(node)
    return kept[::-1]


def _without_content(source: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model's header: versions, producer, metadata, and no graph."""
    header = onnx.ModelProto()
    for field, value in source.ListFields():
        if field.name in ("graph", "functions"):
            continue
        if field.is_repeated:
            getattr(header, field.name).extend(value)
        else:
            setattr(header, field.name, value)
    return header
