"""Element types and shapes of every tensor in a graph."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import onnx

FLOAT = onnx.TensorProto.FLOAT


@dataclass(frozen=True)
class TensorType:
    """What shape inference knows: `shape` is None when the rank is unknown, a dimension None when free."""

    dtype: int
    shape: tuple[int | None, ...] | None


def infer(proto: onnx.ModelProto) -> dict[str, TensorType]:
    """Return the types of the outer graph's tensors; what cannot be inferred is missing."""
    with suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    graph = proto.graph
    types = {t.name: TensorType(t.data_type, tuple(t.dims)) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not tensor.elem_type:
            continue
        shape = tuple(d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
        types[value.name] = TensorType(tensor.elem_type, shape if tensor.HasField("shape") else None)
    return types
