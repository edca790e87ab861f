"""What a QuantizeLinear or DequantizeLinear says, in the terms of TFLite: signed integers of 8 bits."""

from __future__ import annotations

import numpy as np
import onnx

from ....graph.edit import Graph, attribute, standard
from ..quanta import Quanta

CENTRE = 128  # an unsigned integer of 8 bits, lowered by this, is a signed one of the same meaning
NARROW = ("int8", "uint8", "int4", "uint4")  # what fits 8 bits


def quanta_of(graph: Graph, node: onnx.NodeProto) -> Quanta | None:
    """Return the scale of a quantizer or dequantizer of at most 8 bits; None for a computed one, or one of blocks."""
    scale, zero_point = (graph.constant(name) if name else None for name in (*node.input, "")[1:3])
    named = len(node.input) > 2 and bool(node.input[2])
    if scale is None or (named and zero_point is None) or scale.ndim > 1 or attribute(node, "block_size", 0):
        return None
    kind = _kind(graph, node) if zero_point is None else zero_point.dtype.name
    scales = np.asarray(scale, np.float32).ravel()
    zeros = np.zeros(scales.size, np.int64) if zero_point is None else zero_point.astype(np.int64).ravel()
    if (
        kind not in NARROW
        or zeros.size != scales.size
        or not np.isfinite(scales).all()
        or (scales <= 0).any()
    ):
        return None
    pairs = list(zip(scales.tolist(), (zeros - CENTRE * (kind == "uint8")).tolist(), strict=True))
    if len(set(pairs)) == 1:
        pairs = pairs[:1]
    return Quanta(
        tuple(s for s, _ in pairs),
        tuple(z for _, z in pairs),
        int(attribute(node, "axis", 1)) * (len(pairs) > 1),
    )


def _kind(graph: Graph, node: onnx.NodeProto) -> str:
    """Return the type of the integers where no zero point tells it."""
    stored = graph.constant(node.input[0]) if standard(node, "DequantizeLinear") else None
    if stored is not None:
        return stored.dtype.name
    named = attribute(node, "output_dtype", 0) or onnx.TensorProto.UINT8
    return onnx.helper.tensor_dtype_to_np_dtype(named).name


def signed(integers: np.ndarray) -> np.ndarray:
    """Return integers of at most 8 bits as TFLite stores them."""
    if integers.dtype.name == "uint8":
        return (integers.astype(np.int16) - CENTRE).astype(np.int8)
    return integers.astype(np.int8)


def real(
    stored: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, *, axis: int, block: int
) -> np.ndarray:
    """Return what a DequantizeLinear makes of a constant, in float32."""
    centred = stored.astype(np.float32)
    if zero_point is not None:
        centred = centred - _spread(zero_point.astype(np.float32), stored.shape, axis, block)
    return centred * _spread(np.asarray(scale, np.float32), stored.shape, axis, block)


def _spread(numbers: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """Lay numbers along the axis of a tensor; those of blocks are repeated."""
    if block:
        return np.repeat(numbers, block, axis)[tuple(slice(size) for size in shape)]
    if numbers.size == 1:
        return numbers.reshape(())
    return numbers.reshape([-1 if a == axis % len(shape) else 1 for a in range(len(shape))])
