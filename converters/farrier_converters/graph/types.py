"""Element types and shapes of every tensor in a graph."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import onnx

from .edit import add_initializer

FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class TensorType:
    """What shape inference knows: `shape` is None when the rank is unknown, a dimension None when free."""

    dtype: int
    shape: tuple[int | None, ...] | None


def infer(proto: onnx.ModelProto) -> dict[str, TensorType]:
    """Return the types of the outer graph's tensors; what cannot be inferred is missing.

    Values are not followed (`data_prop`): that would build an Expand to a billion elements. Folding makes them
    initializers instead, whose values inference does see.
    """
    typed = _light(proto)
    with suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        typed = onnx.shape_inference.infer_shapes(typed)
    graph = typed.graph
    types = {t.name: TensorType(t.data_type, tuple(t.dims)) for t in proto.graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.elem_type:
            continue
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        types[value.name] = TensorType(tensor.elem_type, shape if tensor.HasField("shape") else None)
    return types


def _light(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose large initializers are inputs without values, since nobody's shape hangs on weights."""
    light = onnx.ModelProto(ir_version=max(proto.ir_version, 4))
    light.opset_import.extend(proto.opset_import)
    light.functions.extend(proto.functions)
    graph, source = light.graph, proto.graph
    graph.name = source.name
    graph.node.extend(source.node)
    graph.output.extend(source.output)
    graph.value_info.extend(source.value_info)
    known = {tensor.name for tensor in source.initializer}
    graph.input.extend(value for value in source.input if value.name not in known)
    for tensor in source.initializer:
        add_initializer(graph, tensor, whole=False)
    return light
