"""The ledger: for each operator of a delivered graph, the unit that runs it, its precision, and why not better."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from farrier_contracts.targets import Target

from .graph.compact.loaded import made_at_load
from .graph.edit import Graph, standard
from .graph.types import TensorType, infer
from .inner import inner_operators
from .model import Model
from .quantize import reasons, rules
from .quantize.already import computes_in_integers
from .weights.marks import stored_precision

HALF = onnx.TensorProto.FLOAT16
BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
WHOLE = (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL, onnx.TensorProto.STRING)
UNKNOWN = TensorType(onnx.TensorProto.UNDEFINED, None)
NOT_QUANTIZED = "the graph was not quantized"
WEIGHTS_ALONE = "only weights were quantized, and it has none"
# What carries values between precisions is not counted as an operator of the model.
PLUMBING = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


@dataclass(frozen=True)
class LedgerEntry:
    """One operator. `precision` is int8, fp16, fp32, or index for whole numbers such as shapes.

    Where weights alone are quantized it is what they are stored in: int4, int3, int2, int8-weights, nf4, bf16, fp8;
    arithmetic is float then. `reason` says why it stayed in float, and is None where it did not or has nothing to do
    with floats.
    """

    index: int
    name: str
    op: str
    unit: str
    precision: str
    reason: str | None


def ledger(model: Model, target: Target) -> tuple[LedgerEntry, ...]:
    """Return one entry per operator of the graph, in graph order; pairs of Q and DQ are not operators.

    The operators of a branch or loop follow the one that holds them, named after it: `If_3/then_branch/Conv_1`.
    """
    graph = Graph(model)
    types = infer(model.proto)
    quantized = any(standard(node, "QuantizeLinear") for node in graph.nodes)
    visited = quantized or any(reasons.reason_of(node) for node in graph.nodes)
    weights = any(stored_precision(node) for node in graph.nodes)
    at_load = made_at_load(graph)
    unit = "cpu" if target.arch != "any" else "none"
    entries: list[LedgerEntry] = []
    for node in graph.nodes:
        if standard(node, *PLUMBING) or reasons.is_part(node) or _makes_scales(graph, node):
            continue
        if node.output[0] in at_load:
            continue
        stored = stored_precision(node)
        precision = stored or _precision(graph, node, types)
        reason = None
        if precision in ("fp32", "fp16") or stored:
            reason = reasons.reason_of(node)
        why = _default_reason(node, quantized=quantized, weights=weights)
        if precision == "fp32" and reason is None:
            reason = why
        name = node.name or node.output[0]
        entries.append(LedgerEntry(len(entries), name, node.op_type, unit, precision, reason))
        why = rules.INSIDE.format(name=name) if visited else why
        inner = inner_operators(node, {name: kind.dtype for name, kind in types.items()})
        for path, operator, precision in inner:
            reason = reasons.reason_of(operator) or why if precision in ("fp32", "fp16") else None
            entries.append(LedgerEntry(len(entries), path, operator.op_type, unit, precision, reason))
    return tuple(entries)


def _default_reason(node: onnx.NodeProto, *, quantized: bool, weights: bool) -> str:
    if quantized:
        return rules.NO_KERNEL.format(op=node.op_type)
    return WEIGHTS_ALONE if weights else NOT_QUANTIZED


def _makes_scales(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a node only computes scales, once, when the file is opened."""
    readers = graph.readers.get(node.output[0], [])
    constant = bool(node.input) and all(name in graph.initializers for name in node.input)
    return constant and bool(readers) and all(standard(reader, "DequantizeLinear") for reader in readers)


def _precision(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> str:
    if node.op_type in rules.INTEGER_OPERATORS or computes_in_integers(graph, node):
        return "int8"
    inputs = {types[name].dtype for name in node.input if name in types}
    result = types.get(node.output[0], UNKNOWN).dtype
    if standard(node, *rules.CARRIERS) and result in BYTES:
        return "int8"
    if HALF in inputs and not standard(node, "Cast"):
        return "fp16"
    return "index" if result in WHOLE else "fp32"
