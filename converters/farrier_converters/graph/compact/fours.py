"""Store integers that fit into four bits in four bits; the engine widens them to eight when it opens the file."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ..edit import Graph, standard

OPSET = 21  # the first that knows INT4
FEWEST = 128  # elements; fewer are not worth a node
LOW, HIGH = -8, 7


def pack(graph: Graph) -> None:
    """Replace int8 weights of at most four bits by INT4 and a Cast; does nothing below operator set 21.

    ONNX Runtime folds the Cast when it opens the file, so that its integer kernels see int8 as before. ONNX packs
    the first of two elements into the lower half of a byte.
    """
    if graph.opset < OPSET:
        return
    for name, tensor in list(graph.initializers.items()):
        readers = graph.readers.get(name, [])
        weights = bool(readers) and all(
            standard(n, "DequantizeLinear") and n.input[0] == name for n in readers
        )
        if tensor.data_type != onnx.TensorProto.INT8 or math.prod(tensor.dims) < FEWEST or not weights:
            continue
        value = graph.constant(name)
        if value is None or value.min() < LOW or value.max() > HIGH:
            continue
        graph.initializers[name] = _four_bits(value, name)
        wide = graph.fresh(f"{name}w")
        graph.rename_reads(name, wide)
        graph.add_node("Cast", [name], wide, to=onnx.TensorProto.INT8).ClearField("name")
    graph.index()


def _four_bits(value: np.ndarray, name: str) -> onnx.TensorProto:
    halves = value.ravel().astype(np.uint8) & 0xF
    halves = np.append(halves, np.zeros(halves.size % 2, np.uint8))
    packed = halves[0::2] | (halves[1::2] << 4)
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT4, raw_data=packed.tobytes())
    tensor.dims.extend(value.shape)
    return tensor
