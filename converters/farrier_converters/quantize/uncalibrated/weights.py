"""Weight-only INT8: weights are stored as integers, and the arithmetic stays in float.

They are stored as a Cast and a Mul, which ONNX Runtime computes once, when the file is opened: float's speed for any
operator. A DequantizeLinear it keeps, and computes in each inference, unless it finds a MatMul that it can replace by
its MatMulNBits kernel: two to four times as fast as float with one row, and slower than float with many.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...graph.edit import attribute, standard
from ...model import Model, from_proto, opset
from ...weights.marks import mark
from .. import reasons, rules
from .integers import best_axis, quantize, require_finite
from .scopes import Scopes, value_of

STORED = "int8-weights"  # what a marked node's weights are, in the ledger
AXIS_OPSET = 13  # the first whose DequantizeLinear knows an axis
# Axes that index results, of the weights at each position: they get scales of their own.
KEPT = {"Conv": (0,), "ConvTranspose": (1,), "LSTM": (0, 1), "GRU": (0, 1), "RNN": (0, 1), "Gather": (0,)}
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
WEIGHTED = ("MatMul", "Gemm", "Einsum", *KEPT)
MOVERS = ("Slice", "Concat", "Split", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class Selection:
    """Which constants are weights: of rank two or more, with at least `smallest` elements."""

    smallest: int = 1024
    exclude: frozenset[str] = frozenset()
    packed: bool = False  # let MatMul multiply by the integers
    rest: bool = False  # the others are quantized already, and what nodes note about themselves stays


def store_as_integers(model: Model, selection: Selection) -> Model:
    """Return the model with its float32 weights as int8, in subgraphs too; a note on each node says what it is.

    Raises InputError for weights that are not finite.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.ir_version = max(proto.ir_version, 4)  # initializers need not be inputs
    scopes = Scopes(proto)
    readers, outputs = scopes.readers(), scopes.outputs()
    chosen = {
        name: readers[name]
        for name, tensor in scopes.constants().items()
        if len(tensor.dims) > 1
        and int(np.prod(tensor.dims)) >= selection.smallest
        and name not in outputs
        and _is_weight(name, readers, selection.exclude, frozenset())
    }
    for graph in list(scopes):
        _replace(scopes, graph, chosen, packed=selection.packed and opset(proto) >= AXIS_OPSET)
    (_mark if selection.rest else _note)(scopes, chosen)
    return from_proto(proto, model.name)


def _is_weight(
    name: str, readers: dict[str, list[onnx.NodeProto]], exclude: frozenset[str], seen: frozenset[str]
) -> bool:
    """Say whether only operators with weights read a constant, at once or moved about."""
    who = readers.get(name, [])
    if not who or name in seen:
        return False
    for node in who:
        if exclude & {node.name, *node.output}:
            return False
        moved = standard(node, *MOVERS) and all(
            _is_weight(result, readers, exclude, seen | {name}) for result in node.output if result
        )
        if not (moved or (standard(node, *WEIGHTED) and name in node.input[:3])):
            return False
    return True


def _replace(
    scopes: Scopes, graph: onnx.GraphProto, chosen: dict[str, list[onnx.NodeProto]], *, packed: bool
) -> None:
    made: list[onnx.NodeProto] = []
    added: list[onnx.TensorProto] = []
    gone = set()
    constants = [(t.name, t) for t in graph.initializer]
    constants += [
        (n.output[0], n.attribute[0].t) for n in graph.node if standard(n, "Constant") and n.attribute
    ]
    for name, tensor in constants:
        if name in chosen and name not in gone:
            gone.add(name)
            nodes, tensors = _stored(scopes, name, value_of(tensor), chosen[name], packed=packed)
            made += nodes
            added += tensors
    kept = [tensor for tensor in graph.initializer if tensor.name not in gone]
    nodes = [n for n in graph.node if not (standard(n, "Constant") and n.output[0] in gone)]
    inputs = [value for value in graph.input if value.name not in gone]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in made + nodes]
    kept = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept + added]
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
    del graph.node[:], graph.initializer[:], graph.input[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    graph.input.extend(inputs)


def _stored(
    scopes: Scopes, name: str, values: np.ndarray, readers: list[onnx.NodeProto], *, packed: bool
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    require_finite(name, values)
    multiplies = (
        packed and values.ndim == 2 and len(readers) == 1 and all(_multiplies(node, name) for node in readers)
    )
    integers, scale = quantize(values, (1,) if multiplies else _kept(name, values, readers))
    stored, scales = scopes.fresh(f"{name}_int8"), scopes.fresh(f"{name}_scale")
    tensors = [
        numpy_helper.from_array(integers, stored),
        numpy_helper.from_array(scale.reshape(-1) if multiplies else scale, scales),
    ]
    if multiplies:
        return [helper.make_node("DequantizeLinear", [stored, scales], [name], axis=1)], tensors
    cast = scopes.fresh(f"{name}_cast")
    return [
        reasons.mark_part(helper.make_node("Cast", [stored], [cast], to=onnx.TensorProto.FLOAT)),
        reasons.mark_part(helper.make_node("Mul", [cast, scales], [name])),
    ], tensors


def _multiplies(node: onnx.NodeProto, name: str) -> bool:
    """Say whether a node's kernel multiplies by the integers themselves."""
    if list(node.input).count(name) != 1 or list(node.input).index(name) != 1:
        return False
    plain = not any(attribute(node, key, 0) for key in ("transA", "transB"))
    factors = attribute(node, "alpha", 1.0) == 1.0 == attribute(node, "beta", 1.0)
    return standard(node, "MatMul") or (standard(node, "Gemm") and plain and factors)


def _kept(name: str, values: np.ndarray, readers: list[onnx.NodeProto]) -> tuple[int, ...]:
    kinds = {node.op_type for node in readers if standard(node, *KEPT)}
    if len(kinds) == 1 and all(standard(node, *kinds) for node in readers):
        kind = next(iter(kinds))
        by_position = list(readers[0].input).index(name) == (0 if kind == "Gather" else 1)
        recurrent = kind in ("LSTM", "GRU", "RNN") and list(readers[0].input).index(name) in (1, 2)
        if (by_position and attribute(readers[0], "axis", 0) == 0) or recurrent:
            return tuple(axis for axis in KEPT[kind] if axis < values.ndim)
    return best_axis(values)


def _mark(scopes: Scopes, chosen: dict[str, list[onnx.NodeProto]]) -> None:
    for graph in scopes:
        for node in graph.node:
            if chosen.keys() & set(node.input) and not reasons.is_part(node):
                mark(node, STORED)


def _note(scopes: Scopes, chosen: dict[str, list[onnx.NodeProto]]) -> None:
    for graph in scopes:
        for node in graph.node:
            if (
                standard(node, *CONVERSIONS, "Constant")
                or node.op_type in rules.INTEGER_OPERATORS
                or reasons.is_part(node)
            ):
                continue
            reads = chosen.keys() & set(node.input)
            reasons.set_reason(node, rules.WEIGHT_ONLY if reads else rules.NO_WEIGHTS)
