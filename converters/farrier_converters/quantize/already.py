"""Which operators of a graph compute in integers as it stands, whoever quantized it."""

from __future__ import annotations

import onnx

from ..graph.edit import Graph, standard
from . import reasons, rules


def computes_in_integers(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node reads dequantized tensors and its result is quantized, or need not be."""
    if reasons.is_integer(node):
        return True
    if reasons.reason_of(node) or not standard(node, *rules.LINEAR, *rules.CARRIERS, *rules.ARITHMETIC):
        return False
    operands = node.input if standard(node, *rules.LINEAR, *rules.VARIADIC) else node.input[:1]
    makers = [graph.producer.get(name) for name in operands if name]
    behind_integer = (
        standard(node, *rules.ACTIVATIONS) and makers[0] is not None and _is_linear(graph, makers[0])
    )
    if not behind_integer and not all(m is not None and standard(m, "DequantizeLinear") for m in makers):
        return False
    return standard(node, "Gemm", "MatMul") or all(_is_quantized(graph, name) for name in node.output if name)


def _is_linear(graph: Graph, node: onnx.NodeProto) -> bool:
    makers = [graph.producer.get(name) for name in node.input if name]
    return standard(node, *rules.LINEAR, "Add", "Mul") and all(
        m is not None and standard(m, "DequantizeLinear") for m in makers
    )


def _is_quantized(graph: Graph, name: str) -> bool:
    reader = graph.only_reader(name)
    if reader is not None and standard(reader, *rules.ACTIVATIONS):
        reader = graph.only_reader(reader.output[0])
    return reader is not None and standard(reader, "QuantizeLinear")
