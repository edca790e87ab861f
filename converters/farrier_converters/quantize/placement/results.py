"""Decide, for each operator, integers or float: where quantizers go and which tensors share a scale.

The rule is that integers flow where they pay. Multiply-accumulate operators become integer; what lies between two
of them follows, if it has an integer kernel and integer inputs; what follows the last of them stays in float, since
it is cheap and decides the resolution of the result. A quantizer stands after an activation function, never
before, so that the engine can make both part of the operator's own requantization.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from ...graph.edit import Graph, reads, standard
from ...graph.types import TensorType, infer
from .. import rules
from ..already import computes_in_integers
from . import obstacles
from .kernels import ONNXRUNTIME, Kernels
from .plan import Placement


class _Planner:
    def __init__(
        self, graph: Graph, exclude: frozenset[str], *, stem: bool, slower: frozenset[str], kernels: Kernels
    ) -> None:
        self.graph = graph
        self.kernels = kernels
        self.types: dict[str, TensorType] = infer(graph.without_weights())
        self.plan = Placement()
        self.exclude = exclude
        self.stem = stem
        self.slower = slower
        self.done = {id(node) for node in graph.nodes if is_done(graph, node)}
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
            kernel = standard(node, *self.kernels.others)
            if kernel and self._named_obstacle(node) is None is obstacles.carrier(self.graph, node):
                found.update([id(node)] if all(self._flows(n, found) for n in node.output if n) else ())
        return found

    def _flows(self, name: str, flowing: set[int]) -> bool:
        """Say whether only integer operators read a tensor: those that multiply, or those in `flowing`."""
        readers = self.graph.readers.get(name, [])
        inner = bool(readers) and not self.graph.kept(name)
        return inner and all(id(n) in flowing or self._multiplies(n) for n in readers)

    def _multiplies(self, node: onnx.NodeProto) -> bool:
        """Say whether a node is a multiply-accumulate operator that becomes integer."""
        linear = standard(node, *self.kernels.linear)
        return linear and self._named_obstacle(node) is None is self._linear(node)

    def _obstacle(self, node: onnx.NodeProto) -> str | None:
        """Return why a node has to stay in float, or None."""
        named = self._named_obstacle(node)
        if named is not None:
            return named
        if standard(node, *self.kernels.linear):
            return self._linear(node)
        if not standard(node, *self.kernels.others):
            return rules.NO_KERNEL.format(op=node.op_type)
        if id(node) not in self.useful and not self.kernels.everywhere:
            return rules.TAIL
        return self._operand_obstacle(node) or obstacles.carrier(self.graph, node)

    def _named_obstacle(self, node: onnx.NodeProto) -> str | None:
        if self.exclude.intersection((node.name, node.output[0])):
            return rules.EXCLUDED
        return rules.SLOWER if node.output[0] in self.slower else None

    def _operand_obstacle(self, node: onnx.NodeProto) -> str | None:
        """Return the first operand that is not quantized; Add and Mul may have one constant."""
        floats = [n for n in self._operands(node) if n not in self.plan.made and n not in self.plan.read]
        if floats and self._moves_into_integers(node):
            return None
        constants = [name for name in self._constants(node) if name in floats]
        computed = [name for name in floats if name not in constants]
        if not computed or (self.kernels.everywhere and self._readable(node, computed)):
            return None if len(constants) < len(self._operands(node)) else rules.CONSTANT
        return rules.FLOAT_INPUT.format(name=floats[0]) if floats else None

    def _readable(self, node: onnx.NodeProto, names: Sequence[str]) -> bool:
        """Say whether a node's results, and operands that are not quantized yet, are activations in float32."""
        results = [name for name in node.output if name]
        variable = all(self.graph.constant(name) is None for name in names)
        return variable and all(obstacles.is_float(self.types, name) for name in (*names, *results))

    def _constants(self, node: onnx.NodeProto) -> list[str]:
        """Return the operands that may be constant, and are."""
        if not standard(node, *self.kernels.constants):
            return []
        constants = {name: self.graph.constant(name) for name in node.input if name}
        return [name for name, value in constants.items() if value is not None and value.dtype == np.float32]

    def _moves_into_integers(self, node: onnx.NodeProto) -> bool:
        """Say whether a node only moves values to integer operators: it moves a quarter of the bytes in integers."""
        if id(node) not in self.moves:
            readers = self.graph.readers.get(node.output[0], [])
            self.moves[id(node)] = (
                standard(node, *rules.MOVERS)
                and bool(readers)
                and not self.graph.kept(node.output[0])
                and obstacles.is_float(self.types, node.input[0])
                and obstacles.carrier(self.graph, node) is None
                and self._named_obstacle(node) is None
                and all(self._takes_integers(reader, node.output[0]) for reader in readers)
            )
        return self.moves[id(node)]

    def _takes_integers(self, reader: onnx.NodeProto, name: str) -> bool:
        if reader.input[0] != name or list(reader.input).count(name) != 1:
            return False
        return self._multiplies(reader) or self._moves_into_integers(reader)

    def _linear(self, node: onnx.NodeProto) -> str | None:
        if node.op_type == "MatMul" and not self.kernels.products and not self._has_weights(node):
            return rules.SLOW_PRODUCT
        return obstacles.linear(self.graph, self.types, node, stem=self.stem)

    def _has_weights(self, node: onnx.NodeProto) -> bool:
        return any(self.graph.constant(name) is not None for name in node.input[:2])

    def _operands(self, node: onnx.NodeProto) -> list[str]:
        every = standard(node, *self.kernels.variadic, *self.kernels.constants)
        names = node.input if every else node.input[:1]
        return [name for name in names if name]

    def _accept(self, node: onnx.NodeProto) -> None:
        plan = self.plan
        plan.integer.add(id(node))
        if standard(node, *self.kernels.linear):
            self._read(node.input[:2] if node.op_type == "MatMul" else node.input[:1])
        elif self._moves_into_integers(node):
            self._read(node.input[:1])
        elif self.kernels.everywhere:
            self._read(self._operands(node))
        if standard(node, "Gemm", "MatMul") and not self.kernels.dense_per_channel:
            plan.single.add(id(node))
        results = [self._behind_activation(node, name) for name in node.output if name]
        free = self.kernels.floats and standard(node, "Gemm", "MatMul")
        if free and not self._flows(results[0], self.flowing):
            return
        for result in results:
            plan.made[result] = None
        if standard(node, *self.kernels.carriers):
            for name in (*self._operands(node)[1:], *results):
                plan.join(self._operands(node)[0], name)
        plan.constants.update((id(node), name) for name in self._constants(node))
        if node.op_type in self.kernels.bounded:
            plan.bounds[results[0]] = self.kernels.bounded[node.op_type]

    def _read(self, names: Sequence[str]) -> None:
        for name in names:
            if self.graph.constant(name) is None and name not in self.plan.made:
                self.plan.read[name] = None
                self._bound(name)

    def _bound(self, name: str) -> None:
        maker = self.graph.producer.get(name)
        if maker is not None and maker.op_type in self.kernels.bounded:
            self.plan.bounds[name] = self.kernels.bounded[maker.op_type]

    def _behind_activation(self, node: onnx.NodeProto, name: str) -> str:
        """Return the tensor to quantize for this result: the one behind a Relu or Clip that alone reads it."""
        reader = self.graph.only_reader(name)
        fused = standard(node, *self.kernels.linear, "Add", "Mul", "Sub")
        if reader is None or not fused or not standard(reader, *rules.ACTIVATIONS) or reader.input[0] != name:
            return name
        if any(n and self.graph.constant(n) is None for n in reader.input[1:]):
            return name
        self.plan.absorbed.add(id(reader))
        self.plan.integer.add(id(reader))
        return reader.output[0]


def is_done(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node came quantized, or converts for those that did."""
    conversion = standard(node, "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
    return conversion or node.op_type in rules.INTEGER_OPERATORS or computes_in_integers(graph, node)


def place(
    graph: Graph,
    *,
    exclude: frozenset[str] = frozenset(),
    stem: bool = True,
    slower: frozenset[str] = frozenset(),
    kernels: Kernels = ONNXRUNTIME,
) -> Placement:
    """Plan the quantization of a graph; `exclude` names nodes (or first outputs) that stay in float.

    Without `stem`, convolutions of at most four input channels stay in float too. `slower` are the first outputs of
    nodes that stay in float because they are faster so. `kernels` are those of the engine.
    """
    return _Planner(graph, exclude, stem=stem, slower=slower, kernels=kernels).run()
