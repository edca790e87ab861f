"""Put changed constants back into a copy of the model, wherever they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.errors import InputError

from ..model import Model, from_proto, subgraphs
from .edit import set_attribute, standard


def write_back(model: Model, values: Mapping[str, np.ndarray]) -> Model:
    """Return a copy with these constants replaced; nothing else changes, and without values not one byte.

    Values keep the element type they had. Raises InputError for a name that the model does not store.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    if not values:
        return from_proto(proto, model.name)
    left = dict(values)
    for name, holder in _stored(proto.graph):
        if name not in left:
            continue
        value = left.pop(name)
        if isinstance(holder, onnx.TensorProto):
            holder.CopyFrom(_typed(value, holder))
        else:
            old = next((a.t for a in holder.attribute if a.name == "value"), None)
            made = numpy_helper.from_array(value, name) if old is None else _typed(value, old)
            del holder.attribute[:]
            set_attribute(holder, "value", made)
    if left:
        raise InputError(f"the model stores no constant called {next(iter(left))!r}")
    return from_proto(proto, model.name)


def _typed(value: np.ndarray, old: onnx.TensorProto) -> onnx.TensorProto:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(old.data_type)
    return numpy_helper.from_array(np.asarray(value, order="C").astype(dtype), old.name)


def _stored(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto | onnx.NodeProto]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for node in graph.node:
        if standard(node, "Constant"):
            yield node.output[0], node
        for inner in subgraphs(node):
            yield from _stored(inner)
