"""Vectors that exporters merged because they were equal, taken apart: chance sharing ties no layers."""

from __future__ import annotations

from onnx import TensorProto

from ..graph.edit import Graph, replace
from ..model import Model

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def separate(model: Model) -> Model:
    """Return the model with a copy of each floating-point vector for every node that reads it.

    Exporters and clean-up passes store equal tensors once (zero biases, the ones of fresh norms). Left so, cutting one
    layer would cut the others. Matrices stay shared: that saves something, and is mostly meant (a head that all levels
    of a pyramid use, words at both ends of a language model).
    """
    graph = Graph(model)
    changed = False
    for name, tensor in list(graph.initializers.items()):
        vector = sum(size > 1 for size in tensor.dims) == 1
        if not vector or tensor.data_type not in FLOATS:
            continue
        for reader in graph.readers.get(name, [])[0 if graph.kept(name) else 1 :]:
            copy = graph.fresh(name)
            made = TensorProto()
            made.CopyFrom(tensor)
            made.name = copy
            graph.initializers[copy] = made
            replace(reader.input, name, copy)
            changed = True
    if not changed:
        return model
    graph.index()
    return graph.build()
