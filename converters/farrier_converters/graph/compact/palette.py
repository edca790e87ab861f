"""Store a table of few different values as bytes that point into a list; the engine looks them up on opening."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import helper

from ..edit import Graph, standard

FEWEST = 1024  # elements; fewer are not worth two nodes
NODES_BYTES = 100  # what these take in a file
KINDS: dict[np.dtype[Any], type[np.unsignedinteger[Any]]] = {
    np.dtype(np.float32): np.uint32,
    np.dtype(np.int64): np.uint64,
    np.dtype(np.int32): np.uint32,
}
# Their constants are weights, which tools look for as they are; lookup tables and shapes too.
LEFT = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Gather", "Reshape", "Resize")
CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")


def pack(graph: Graph) -> None:
    """Replace constants of at most 256 different values, in place, where that makes the file smaller.

    A detector's table of prior boxes is one: positions on a grid, and a handful of sizes. The bits stay the same.
    """
    for name, tensor in list(graph.initializers.items()):
        readers = graph.readers.get(name, [])
        plain = bool(readers) and not graph.kept(name)
        left = any(standard(n, *LEFT, *CONVERSIONS) for n in readers)
        if math.prod(tensor.dims) < FEWEST or not plain or left:
            continue
        value = graph.constant(name)
        if value is None or value.dtype not in KINDS:
            continue
        bits = np.ascontiguousarray(value).view(KINDS[value.dtype])
        different, places = np.unique(bits, return_inverse=True)
        saved = value.nbytes - places.size - different.nbytes - NODES_BYTES
        if different.size > 256 or saved <= 0:
            continue
        listed = graph.add_constant(f"{name}_values", different.view(value.dtype))
        where = graph.add_constant(f"{name}_places", places.reshape(value.shape).astype(np.uint8))
        index = graph.fresh(f"{name}_index")
        graph.add_node("Cast", [where], index, to=onnx.TensorProto.INT32).ClearField("name")
        graph.nodes.append(helper.make_node("Gather", [listed, index], [name]))
        del graph.initializers[name]
    graph.index()
