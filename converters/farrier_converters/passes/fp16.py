"""Half precision: weights and arithmetic in float16, inputs and outputs in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..graph.edit import Graph, reads, standard
from ..graph.extremes import largest_magnitudes
from ..graph.types import FLOAT, TensorType, infer
from ..model import STANDARD_DOMAINS, Model, subgraphs
from ..quantize.rewrite import set_reason
from . import Context, Pass

HALF = onnx.TensorProto.FLOAT16
LARGEST = float(np.finfo(np.float16).max)
MARGIN = 4  # times what calibration data shows that other data may
SMALLEST = float(np.finfo(np.float16).smallest_subnormal) / 2  # and all below become zero
# Results that leave the range of float16 easily, or that choose the type of their result themselves.
WIDE = ("Exp", "Pow", "ReduceSum", "ReduceSumSquare", "ReduceL2", "ReduceProd", "CumSum", "Reciprocal")
TYPED = ("Cast", "CastLike", "ConstantOfShape", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
# Summing into float16 has no kernel in ONNX Runtime; a composed operator mixes in float32 constants.
NO_KERNEL = ("ScatterElements", "ScatterND", "MeanVarianceNormalization")
# A bound beyond float16 means "no bound" to these: clipping it changes nothing.
BOUNDING = ("Clip", "Max", "Min")


@dataclass(frozen=True)
class Fp16Options:
    """Nodes (by name) that stay in float32."""

    exclude: tuple[str, ...] = ()


def run(model: Model, options: Fp16Options, context: Context) -> Model:
    """Return the model with float16 weights wherever its operators allow; every node that stays says why.

    Where there is calibration data, nodes whose tensors come near the end of float16's range on it stay too.

    A tensor keeps its name in float32; its half form gets a name of its own, and casts stand where one kind of
    node reads what the other made. Control flow and everything inside it stays in float32.
    """
    graph = Graph(model)
    types = infer(graph.without_weights())
    half = _HalfForms(graph, types)
    reach = _reach(graph, types, context)
    for node in list(graph.nodes):
        reason = _obstacle(graph, node, types, frozenset(options.exclude)) or _overflow(node, reach)
        if reason is None:
            half.convert(node)
        elif _touches_float(node, types):
            set_reason(node, reason)
    half.restore_names()
    return graph.build()


class _HalfForms:
    """The float16 forms of a graph's tensors, made when first asked for."""

    def __init__(self, graph: Graph, types: dict[str, TensorType]) -> None:
        self.graph = graph
        self.types = types
        self.names: dict[str, str] = {}
        self.made: list[str] = []

    def convert(self, node: onnx.NodeProto) -> None:
        """Let a node read and write half forms."""
        for position in _half_positions(self.graph, node, self.types):
            node.input[position] = self._read(node.input[position])
        for position, name in enumerate(node.output):
            if name and self.types[name].dtype == FLOAT:
                self.names[name] = self.graph.fresh(f"{name}_fp16")
                self.made.append(name)
                node.output[position] = self.names[name]

    def _read(self, name: str) -> str:
        if name not in self.names:
            value = self.graph.constant(name)
            if value is not None:
                clipped = np.clip(value, -LARGEST, LARGEST).astype(np.float16)
                self.names[name] = self.graph.add_constant(f"{name}_fp16", clipped)
            else:
                self.names[name] = self.graph.fresh(f"{name}_fp16")
                self.graph.add_node("Cast", [name], self.names[name], to=HALF)
        return self.names[name]

    def restore_names(self) -> None:
        """Give the tensors that were made in half precision their float32 form back, where something reads it."""
        needed = {name for node in self.graph.nodes for name in reads(node)} | set(self.graph.outputs)
        for name in self.made:
            if name in needed:
                self.graph.add_node("Cast", [self.names[name]], name, to=FLOAT)


def _obstacle(
    graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType], exclude: frozenset[str]
) -> str | None:
    if exclude.intersection((node.name, node.output[0])):
        return "excluded by an option"
    if any(True for _ in subgraphs(node)):
        return "control flow stays in float32"
    if node.domain not in STANDARD_DOMAINS or standard(node, *TYPED):
        return f"{node.op_type} fixes its own types"
    if standard(node, *WIDE):
        return f"the results of {node.op_type} leave the range of float16"
    if standard(node, *NO_KERNEL):
        return f"ONNX Runtime has no float16 kernel for {node.op_type}"
    if any(name and name not in types for name in (*node.input, *node.output)):
        return "the types of its tensors are not known"
    positions = _half_positions(graph, node, types)
    floats = [name for name in node.output if name and types[name].dtype == FLOAT]
    if not positions or not floats or not _outputs_follow(graph, node, types):
        return f"{node.op_type} has no float16 form"
    for position in positions:
        reason = _constant_obstacle(graph, node, node.input[position])
        if reason is not None:
            return reason
    return None


def _reach(graph: Graph, types: dict[str, TensorType], context: Context) -> dict[str, float]:
    """Return the largest magnitudes on the calibration data; nothing where there is none."""
    if context.calibration is None:
        return {}
    made = [name for node in graph.nodes for name in node.output if name]
    names = [spec.name for spec in graph.model.inputs] + made
    floats = [name for name in names if name in types and types[name].dtype == FLOAT]
    return largest_magnitudes(graph.build().proto, floats, context.calibration)


def _overflow(node: onnx.NodeProto, reach: dict[str, float]) -> str | None:
    for name in (*node.input, *node.output):
        if reach.get(name, 0.0) > LARGEST / MARGIN:
            return f"{name} reaches {reach[name]:.3g} on the calibration data, too near the end of float16's range"
    return None


def _constant_obstacle(graph: Graph, node: onnx.NodeProto, name: str) -> str | None:
    value = graph.constant(name)
    if value is None or not value.size:
        return None
    largest = float(np.abs(value).max())
    if largest > LARGEST and not standard(node, *BOUNDING):
        return f"its constant {name} does not fit into float16"
    if 0 < largest < SMALLEST:
        return f"its constant {name} would become zero in float16"
    return None


def _half_positions(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> list[int]:
    """Return which float inputs the operator's schema lets be float16."""
    schema = _schema(graph, node)
    if schema is None or not schema.inputs:
        return []
    positions = []
    for position, name in enumerate(node.input):
        formal = schema.inputs[min(position, len(schema.inputs) - 1)]
        if name and name in types and types[name].dtype == FLOAT and "tensor(float16)" in formal.types:
            positions.append(position)
    return positions


def _outputs_follow(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> bool:
    """Say whether every float result takes the type of an input that becomes float16."""
    schema = _schema(graph, node)
    if schema is None:
        return False
    variables = set()
    for position in _half_positions(graph, node, types):
        variables.add(schema.inputs[min(position, len(schema.inputs) - 1)].type_str)
    for position, name in enumerate(node.output):
        formal = schema.outputs[min(position, len(schema.outputs) - 1)]
        if name and types[name].dtype == FLOAT and formal.type_str not in variables:
            return False
    return True


def _schema(graph: Graph, node: onnx.NodeProto) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, graph.opset, node.domain)
    except onnx.defs.SchemaError:
        return None


def _touches_float(node: onnx.NodeProto, types: dict[str, TensorType]) -> bool:
    return any(name in types and types[name].dtype == FLOAT for name in (*node.input, *node.output))


FP16 = Pass("fp16", Fp16Options, run)
