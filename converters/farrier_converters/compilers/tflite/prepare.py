"""Before lowering: which axis is the batch, and a graph that is folded, fused, and knows all its shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import onnx.inliner
from onnx import helper

from farrier_contracts.errors import InputError

from ... import passes
from ...graph.edit import Graph
from ...graph.types import TensorType, infer
from ...model import STANDARD_DOMAINS, Model, from_proto, opset, subgraphs
from ...passes.fuse import raised
from ...tflite.layout import BATCH, BatchError
from .ops import HANDLERS
from .quanta import Quanta
from .quantized import normal, settle
from .unroll import unroll

NEWEST = 20  # the operator set of GELU
MAX_EXPANSIONS = 8  # functions whose bodies hold functions, loops inside loops
OTHER_BATCH = 1_000_033  # a second prime: what differs between the two depends on the number of rows


@dataclass(frozen=True)
class Prepared:
    """A graph ready to be lowered, and what is known of its tensors: sizes that hold BATCH are free."""

    graph: Graph
    types: dict[str, TensorType]
    scales: dict[str, Quanta]  # of what is held in 8 bits


def free_batch(model: Model) -> bool:
    """Say whether the first axis of the inputs is free; raises InputError for any other free axis.

    A named dimension is the batch wherever its name occurs.
    """
    name = _batch_name(model)
    free = False
    for value in _inputs(model):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            if axis != 0 and (not name or dim.dim_param != name):
                raise InputError(
                    f"the input {value.name!r} of {model.name} has a free size at axis {axis}, and a TFLite file can "
                    "leave only the batch free; export the model with fixed sizes"
                )
            if axis == 0 and dim.dim_param != name:
                raise InputError(
                    f"the inputs of {model.name} begin with free sizes of different names, {name!r} and "
                    f"{dim.dim_param!r}; export the model with one batch, or with fixed sizes"
                )
            free = True
    return free


def prepare(model: Model, *, rows: bool) -> Prepared:
    """Clean, fuse and infer shapes, with the batch left free (`rows`) or fixed at one.

    Raises BatchError where the graph computes with the number of rows, so that the batch cannot be free. Formulas that
    are operators in newer operator sets become these: TFLite has GELU and HARD_SWISH.
    """
    model = raised(model, NEWEST)
    if not rows:
        return _prepared(_sized(model, 1))
    found = _prepared(_sized(model, BATCH))
    if not _reads_shapes(model):
        return found
    other = _prepared(_sized(model, OTHER_BATCH))
    for name in found.graph.initializers.keys() | other.graph.initializers.keys():
        left, right = found.graph.constant(name), other.graph.constant(name)
        if left is None or right is None or left.shape != right.shape or not _alike(left, right):
            raise BatchError("the graph computes with the number of rows")
    return found


def _reads_shapes(model: Model) -> bool:
    """Say whether a node could turn a size into a value: itself, or by its definition in other operators."""
    version = opset(model.proto)
    graphs = [model.proto.graph]
    while graphs:
        for node in graphs.pop().node:
            graphs.extend(subgraphs(node))
            if node.op_type in ("Shape", "Size") or (
                node.op_type not in HANDLERS and _is_function(node.op_type, version)
            ):
                return True
    return False


def _apply(model: Model, name: str) -> Model:
    step = passes.get(name)
    return step.run(model, step.options(), passes.Context())


def _expanded(model: Model) -> Model:
    """Write operators out that ONNX defines by others and that have no handler here."""
    version = opset(model.proto)
    names = {node.op_type for node in model.proto.graph.node if node.domain in STANDARD_DOMAINS}
    written = sorted(name for name in names - HANDLERS.keys() if _is_function(name, version))
    if not written:
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for name, kind in infer(model.proto).items():  # the inliner asks for types, and infers none itself
        proto.graph.value_info.append(helper.make_tensor_value_info(name, kind.dtype, kind.shape))
    proto.graph.value_info.add(name="")  # an input left out
    for node in proto.graph.node:
        if node.op_type in written:
            _state_defaults(node, version)
    try:
        proto = onnx.inliner.inline_selected_functions(
            proto, [("", name) for name in written], inline_schema_functions=True
        )
    except (RuntimeError, ValueError):  # the definition does not fit what the node reads
        return model
    del proto.graph.value_info[:]
    return from_proto(proto, model.name)


def _state_defaults(node: onnx.NodeProto, version: int) -> None:
    """Write down the attributes that are left out: the inliner would leave them out of the body too."""
    known = {field.name for field in node.attribute}
    for name, field in onnx.defs.get_schema(node.op_type, version).attributes.items():
        if name not in known and field.default_value.name:
            node.attribute.append(field.default_value)


def _is_function(name: str, version: int) -> bool:
    try:
        schema = onnx.defs.get_schema(name, version)
    except onnx.defs.SchemaError:
        return False
    return any(getattr(schema, flag) for flag in ("has_function", "has_context_dependent_function"))


def _alike(left: np.ndarray, right: np.ndarray) -> bool:
    """Say whether two constants are the same but for shapes that hold the number of rows."""
    if left.dtype.kind in "iu" and left.dtype.itemsize >= 4:  # smaller ones are no shapes
        free = (left % BATCH == 0) & (right % OTHER_BATCH == 0) & (left // BATCH == right // OTHER_BATCH)
        return bool(((left == right) | free).all())
    return left.tobytes() == right.tobytes()


def _prepared(model: Model) -> Prepared:
    model = _apply(model, "clean")
    for _ in range(MAX_EXPANSIONS):
        expanded = unroll(_expanded(model))
        if expanded is model:
            break
        model = _apply(expanded, "clean")
    model = _apply(model, "fuse")
    model = normal(model)
    graph = Graph(model)
    return Prepared(graph, infer(model.proto), settle(graph))


def _sized(model: Model, rows: int) -> Model:
    """Return the model with this number of rows; what it says of other tensors' shapes is dropped."""
    name = _batch_name(model)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    del proto.graph.value_info[:]
    initializers = {tensor.name for tensor in proto.graph.initializer}
    for value in proto.graph.input:
        if value.name in initializers:
            continue
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.dim_value <= 0 and (axis == 0 or dim.dim_param == name):
                dim.dim_value = rows
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return from_proto(proto, model.name)


def _inputs(model: Model) -> list[onnx.ValueInfoProto]:
    names = {spec.name for spec in model.inputs}
    return [value for value in model.proto.graph.input if value.name in names]


def _batch_name(model: Model) -> str:
    """Return the name of the first input's free first axis."""
    for value in _inputs(model):
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value <= 0:
            return dims[0].dim_param
    return ""
