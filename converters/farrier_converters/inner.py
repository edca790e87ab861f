"""The operators inside of branches and loops, with the precision that each computes in."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from .graph.edit import attribute, standard
from .quantize import reasons, rules

KINDS = onnx.TensorProto
# What these return does not depend on what they are given.
RESULTS = {
    **dict.fromkeys(("Shape", "Size", "NonZero", "ArgMax", "ArgMin"), KINDS.INT64),
    **dict.fromkeys(
        ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or", "Xor"), KINDS.BOOL
    ),
    "QuantizeLinear": KINDS.UINT8,
    "DequantizeLinear": KINDS.FLOAT,
}
WHOLE = (KINDS.INT64, KINDS.INT32, KINDS.INT8, KINDS.UINT8, KINDS.BOOL, KINDS.STRING)
PLUMBING = ("Constant", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")


def inner_operators(
    node: onnx.NodeProto, types: dict[str, int], prefix: str = ""
) -> Iterator[tuple[str, onnx.NodeProto, str]]:
    """Yield (path, operator, precision) for every operator in the subgraphs of a node, at any depth.

    `types` are the element types known outside.
    """
    path = f"{prefix}{node.name or node.output[0]}"
    for field in node.attribute:
        graphs = [field.g] if field.type == field.GRAPH else list(field.graphs)
        for graph in graphs:
            known = types | {t.name: t.data_type for t in graph.initializer}
            known |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
            for operator in graph.node:
                kind = _result(operator, known)
                known |= dict.fromkeys(operator.output, kind)
                inside = f"{path}/{field.name}/"
                if standard(operator, *PLUMBING) or reasons.is_part(operator):
                    continue
                yield f"{inside}{operator.name or operator.output[0]}", operator, _precision(operator, kind)
                yield from inner_operators(operator, known, inside)


def _precision(operator: onnx.NodeProto, kind: int) -> str:
    if operator.op_type in rules.INTEGER_OPERATORS:
        return "int8"
    if kind in WHOLE:
        return "index"
    return "fp16" if kind == KINDS.FLOAT16 else "fp32"


def _result(operator: onnx.NodeProto, known: dict[str, int]) -> int:
    """Return the element type of an operator's first result."""
    if operator.op_type in RESULTS:
        return RESULTS[operator.op_type]
    if operator.op_type == "Cast":
        return attribute(operator, "to", KINDS.FLOAT)
    if operator.op_type == "Constant" and operator.attribute:
        field = operator.attribute[0]
        if field.name == "value":
            return field.t.data_type
        return KINDS.INT64 if "int" in field.name else KINDS.FLOAT
    if operator.op_type in ("ConstantOfShape",):
        value = attribute(operator, "value")
        return KINDS.FLOAT if value is None else value.data_type
    position = 1 if operator.op_type == "Where" else 0
    name = operator.input[position] if len(operator.input) > position else ""
    if operator.op_type == "If" and operator.attribute:
        branch = operator.attribute[0].g
        inner = dict(known) | {t.name: t.data_type for t in branch.initializer}
        for node in branch.node:
            inner |= dict.fromkeys(node.output, _result(node, inner))
        return inner.get(branch.output[0].name, KINDS.FLOAT) if branch.output else KINDS.FLOAT
    return known.get(name, KINDS.FLOAT)
