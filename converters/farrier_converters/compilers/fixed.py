"""A model for compilers that want every shape known: it takes one row, and the engine's session feeds row by row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import DYNAMIC, TensorSpec

from ..graph.edit import Graph
from ..graph.fold import fold
from ..graph.types import infer
from ..model import Model, from_proto

FOLD_BYTES = 1 << 20  # of one result of constant folding


def one_row(model: Model) -> tuple[Model, dict[str, Any]]:
    """Return the model with every free batch axis 1 and what follows from shapes folded, and its artifact's options.

    `inputs` and `outputs` are names in the file's order, `specs` the inputs as the model has them; `rows` are those
    that are fed one row at a time. Raises InputError for an input with another free axis.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(Graph(model).build().proto)
    rows = free_batches(model.inputs)
    for value in proto.graph.input:
        if value.name in rows:
            value.type.tensor_type.shape.dim[0].dim_value = 1
    del proto.graph.value_info[:]
    _shape_outputs(proto)
    graph = Graph(from_proto(proto, model.name))
    fold(graph, max_bytes=FOLD_BYTES)
    specs = [spec.to_dict() for spec in model.inputs]
    return graph.build(), {**names(model), "rows": rows, "specs": specs}


def _shape_outputs(proto: onnx.ModelProto) -> None:
    """Give outputs the shapes that follow from those of the inputs."""
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    types = infer(proto)
    for value in proto.graph.output:
        kind = types.get(value.name)
        if kind is not None and kind.shape is not None:
            value.CopyFrom(helper.make_tensor_value_info(value.name, kind.dtype, kind.shape))


def names(model: Model) -> dict[str, list[str]]:
    """Return the options for engines that forget a model's names."""
    return {"inputs": [s.name for s in model.inputs], "outputs": [s.name for s in model.outputs]}


def free_batches(inputs: Sequence[TensorSpec]) -> list[str]:
    """Return the inputs whose first axis is free; raises InputError where another one is."""
    for spec in inputs:
        if DYNAMIC in spec.shape[1:]:
            axis = spec.shape.index(DYNAMIC, 1)
            raise InputError(
                f"axis {axis} of the input {spec.name!r} is free, but this compiler fixes every shape: give it a size"
            )
    return [spec.name for spec in inputs if spec.shape[:1] == (DYNAMIC,)]
