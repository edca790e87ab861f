"""Decide, for each operator, integers or float: where quantizers go and which tensors share a scale.

The rule is that integers flow where they pay. Multiply-accumulate operators become integer; what lies between two
of them follows, if it has an integer kernel and integer inputs; what follows the last of them stays in float, since
it is cheap and decides the resolution of the result. A quantizer stands after an activation function, never
before, so that the engine can make both part of the operator's own requantization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ..graph.bounds import bounds
from ..graph.edit import Graph, attribute, reads, standard
from ..graph.types import FLOAT, TensorType, infer
from . import rules
from .already import computes_in_integers
from .spread import spreading_operator

STEM_CHANNELS = 4  # a convolution of so few input channels reads an image, or something like it


@dataclass
class Placement:
    """What was decided. Nodes are named by `id`; `shares` maps a tensor to one whose scale it has."""

    made: dict[str, None] = field(default_factory=dict)  # tensors that an integer node makes, in graph order
    read: dict[str, None] = field(default_factory=dict)  # float tensors that an integer node reads
    integer: set[int] = field(default_factory=set)
    absorbed: set[int] = field(default_factory=set)  # activation functions that belong to the node before
    constants: dict[int, str] = field(
        default_factory=dict
    )  # constant operands of integer Add and Mul, by node
    shares: dict[str, str] = field(default_factory=dict)
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)

    def root(self, name: str) -> str:
        """Return the tensor that stands for all those which share this one's scale."""
        while self.shares.get(name, name) != name:
            name = self.shares[name]
        return name

    def join(self, first: str, second: str) -> None:
        """Let two tensors share one scale."""
        self.shares[self.root(second)] = self.root(first)

    @property
    def points(self) -> list[str]:
        """The tensors that get a quantizer."""
        return [*self.read, *self.made]


class _Planner:
    def __init__(self, graph: Graph, exclude: frozenset[str], *, stem: bool, slower: frozenset[str]) -> None:
        self.graph = graph
        self.types: dict[str, TensorType] = infer(graph.without_weights())
        self.plan = Placement()
        self.exclude = exclude
        self.stem = stem
        self.slower = slower
        self.done = {id(node) for node in graph.nodes if _is_done(graph, node)}
        self.moves: dict[int, bool] = {}
        self.useful = self._before_linear()
        self.flowing = self._between_linear()

    def run(self) -> Placement:
        for node in self.graph.nodes:
            if id(node) in self.plan.absorbed or id(node) in self.done:
                continue
            reason = self._obstacle(node)
            if reason is None:
                self._accept(node)
            else:
                self.plan.reasons[id(node)] = reason
        return self.plan

    def _before_linear(self) -> set[int]:
        """Return the nodes whose results reach a multiply-accumulate operator as activations."""
        wanted: set[str] = set()
        found: set[int] = set()
        for node in reversed(self.graph.nodes):
            if wanted.intersection(node.output):
                found.add(id(node))
                wanted |= reads(node)
            elif self._multiplies(node):
                wanted |= reads(node)
        return found

    def _between_linear(self) -> set[int]:
        """Return the operators that carry or compute integers for nothing but integer operators."""
        found: set[int] = set()
        for node in reversed(self.graph.nodes):
            kernel = standard(node, *rules.CARRIERS, *rules.ARITHMETIC)
            if kernel and self._named_obstacle(node) is None is self._carrier_obstacle(node):
                found.update([id(node)] if all(self._flows(n, found) for n in node.output if n) else ())
        return found

    def _flows(self, name: str, flowing: set[int]) -> bool:
        """Say whether only integer operators read a tensor: those that multiply, or those in `flowing`."""
        readers = self.graph.readers.get(name, [])
        inner = bool(readers) and not self.graph.kept(name)
        return inner and all(id(n) in flowing or self._multiplies(n) for n in readers)

    def _multiplies(self, node: onnx.NodeProto) -> bool:
        """Say whether a node is a multiply-accumulate operator that becomes integer."""
        linear = standard(node, *rules.LINEAR)
        return linear and self._named_obstacle(node) is None is self._linear_obstacle(node)

    def _is_float(self, name: str) -> bool:
        kind = self.types.get(name)
        return kind is not None and kind.dtype == FLOAT

    def _obstacle(self, node: onnx.NodeProto) -> str | None:
        """Return why a node has to stay in float, or None."""
        named = self._named_obstacle(node)
        if named is not None:
            return named
        if standard(node, *rules.LINEAR):
            return self._linear_obstacle(node)
        if not standard(node, *rules.CARRIERS, *rules.ARITHMETIC):
            return rules.NO_KERNEL.format(op=node.op_type)
        if id(node) not in self.useful:
            return rules.TAIL
        return self._operand_obstacle(node) or self._carrier_obstacle(node)

    def _named_obstacle(self, node: onnx.NodeProto) -> str | None:
        if self.exclude.intersection((node.name, node.output[0])):
            return rules.EXCLUDED
        return rules.SLOWER if node.output[0] in self.slower else None

    def _operand_obstacle(self, node: onnx.NodeProto) -> str | None:
        """Return the first operand that is not quantized; Add and Mul may have one constant."""
        floats = [n for n in self._operands(node) if n not in self.plan.made and n not in self.plan.read]
        if floats and self._moves_into_integers(node):
            return None
        if standard(node, "Add", "Mul") and len(floats) == 1:
            constant = self.graph.constant(floats[0])
            if constant is not None and constant.dtype == np.float32:
                return None
        return rules.FLOAT_INPUT.format(name=floats[0]) if floats else None

    def _moves_into_integers(self, node: onnx.NodeProto) -> bool:
        """Say whether a node only moves values to integer operators: it moves a quarter of the bytes in integers."""
        if id(node) not in self.moves:
            readers = self.graph.readers.get(node.output[0], [])
            self.moves[id(node)] = (
                standard(node, *rules.MOVERS)
                and bool(readers)
                and not self.graph.kept(node.output[0])
                and self._is_float(node.input[0])
                and self._carrier_obstacle(node) is None
                and self._named_obstacle(node) is None
                and all(self._takes_integers(reader, node.output[0]) for reader in readers)
            )
        return self.moves[id(node)]

    def _takes_integers(self, reader: onnx.NodeProto, name: str) -> bool:
        if reader.input[0] != name or list(reader.input).count(name) != 1:
            return False
        return self._multiplies(reader) or self._moves_into_integers(reader)

    def _carrier_obstacle(self, node: onnx.NodeProto) -> str | None:
        if standard(node, "Pad"):
            fill = (
                self.graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
            )
            if attribute(node, "mode", b"constant") == b"constant" and (
                fill is None or (fill.any() and not self._is_least(node.input[0], fill))
            ):
                return "it pads with something other than zero"
        if standard(node, "Resize") and attribute(node, "mode", b"nearest") == b"cubic":
            return "cubic interpolation leaves the range of its input"
        if standard(node, "MaxPool") and len(node.output) > 1 and node.output[1]:
            return "it returns indices"
        return None

    def _is_least(self, name: str, fill: np.ndarray) -> bool:
        """Whether a value is the least that a tensor can take on: the quantizer's range reaches as far."""
        maker = self.graph.producer.get(name)
        ends = None if maker is None else bounds(self.graph, maker)
        return ends is not None and fill.size == 1 and ends[0] == float(fill.reshape(()))

    def _linear_obstacle(self, node: onnx.NodeProto) -> str | None:
        if not all(self._is_float(name) for name in (node.input[0], node.output[0])):
            return "it does not compute in float32"
        obstacle = self._weights_obstacle(node)
        if obstacle is None and not self.stem and standard(node, "Conv"):
            channels = self.types[node.input[1]].shape
            if channels and (channels[1] or 0) * attribute(node, "group", 1) <= STEM_CHANNELS:
                return rules.STEM
        spreading = spreading_operator(self.graph, node) if obstacle is None else None
        return obstacle if spreading is None else rules.SPREAD.format(op=spreading)

    def _weights_obstacle(self, node: onnx.NodeProto) -> str | None:
        weight = self.graph.constant(node.input[1])
        if weight is None:
            if node.op_type == "MatMul" and self._is_float(node.input[1]):
                return None
            maker = self.graph.producer.get(node.input[1])
            stored = maker is not None and standard(maker, "DequantizeLinear")
            return rules.STORED if stored else rules.NOT_CONSTANT
        if weight.dtype != np.float32 or self.graph.constant(node.input[0]) is not None:
            return "it does not multiply activations by float32 weights"
        if node.op_type == "MatMul":
            return None if weight.ndim == 2 else "its weights are not a matrix"
        if len(node.input) > 2 and node.input[2]:
            value = self.graph.constant(node.input[2])
            if value is None or value.dtype != np.float32:
                return "its bias is not constant"
            if node.op_type == "Gemm":
                channels = weight.shape[0 if attribute(node, "transB", 0) else 1]
                if value.size not in (1, channels) or value.shape[-1:] not in ((), (1,), (channels,)):
                    return "its bias differs from row to row"
        if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            return "it scales its operands"
        return None

    def _operands(self, node: onnx.NodeProto) -> list[str]:
        names = node.input if standard(node, *rules.VARIADIC) else node.input[:1]
        return [name for name in names if name]

    def _accept(self, node: onnx.NodeProto) -> None:
        plan = self.plan
        plan.integer.add(id(node))
        if standard(node, *rules.LINEAR):
            self._read(node.input[:2] if node.op_type == "MatMul" else node.input[:1])
        elif self._moves_into_integers(node):
            self._read(node.input[:1])
        results = [self._behind_activation(node, name) for name in node.output if name]
        if standard(node, "Gemm", "MatMul") and not self._flows(results[0], self.flowing):
            return  # the kernels of these two return float at no cost
        for result in results:
            plan.made[result] = None
        if standard(node, *rules.CARRIERS):
            for name in (*self._operands(node)[1:], *results):
                plan.join(self._operands(node)[0], name)
        for name in self._operands(node) if standard(node, "Add", "Mul") else ():
            if self.graph.constant(name) is not None:
                plan.constants[id(node)] = name
        if node.op_type in rules.BOUNDED:
            plan.bounds[results[0]] = rules.BOUNDED[node.op_type]

    def _read(self, names: Sequence[str]) -> None:
        for name in names:
            if self.graph.constant(name) is None and name not in self.plan.made:
                self.plan.read[name] = None
                self._bound(name)

    def _bound(self, name: str) -> None:
        maker = self.graph.producer.get(name)
        if maker is not None and maker.op_type in rules.BOUNDED:
            self.plan.bounds[name] = rules.BOUNDED[maker.op_type]

    def _behind_activation(self, node: onnx.NodeProto, name: str) -> str:
        """Return the tensor to quantize for this result: the one behind a Relu or Clip that alone reads it."""
        reader = self.graph.only_reader(name)
        fused = standard(node, *rules.LINEAR, "Add", "Mul")
        if reader is None or not fused or not standard(reader, *rules.ACTIVATIONS) or reader.input[0] != name:
            return name
        if any(n and self.graph.constant(n) is None for n in reader.input[1:]):
            return name
        self.plan.absorbed.add(id(reader))
        self.plan.integer.add(id(reader))
        return reader.output[0]


def _is_done(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node came quantized, or converts for those that did."""
    conversion = standard(node, "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
    return conversion or node.op_type in rules.INTEGER_OPERATORS or computes_in_integers(graph, node)


def place(
    graph: Graph,
    *,
    exclude: frozenset[str] = frozenset(),
    stem: bool = True,
    slower: frozenset[str] = frozenset(),
) -> Placement:
    """Plan the quantization of a graph; `exclude` names nodes (or first outputs) that stay in float.

    Without `stem`, convolutions of at most four input channels stay in float too. `slower` are the first outputs of
    nodes that stay in float because they are faster so.
    """
    return _Planner(graph, exclude, stem=stem, slower=slower).run()
