"""Vectors that exporters merged because they were equal, taken apart: chance sharing ties no layers."""

from __future__ import annotations

import math

from onnx import TensorProto

from ..graph.edit import Graph, replace
from ..model import Model

LARGEST = 1 << 14  # elements: a larger constant with two readers was meant to be shared (tied embeddings)


def separate(model: Model) -> Model:
    """Return the model with a copy of each small floating-point constant for every node that reads it.

    Exporters and clean-up passes store equal tensors once (zero biases, the ones of fresh norms). Left so, cutting one
    layer would cut the others.
    """
    graph = Graph(model)
    for name, tensor in list(graph.initializers.items()):
        readers = graph.readers.get(name, [])
        floating = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
        if not floating or len(readers) < 2 or graph.kept(name) or not 1 < math.prod(tensor.dims) <= LARGEST:
            continue
        for reader in readers[1:]:
            copy = graph.fresh(name)
            made = TensorProto()
            made.CopyFrom(tensor)
            made.name = copy
            graph.initializers[copy] = made
            replace(reader.input, name, copy)
    graph.index()
    return graph.build()
