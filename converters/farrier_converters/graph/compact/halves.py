"""Scales of weights that float16 holds exactly: two bytes each, all in one tensor that is cut apart on opening."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from ..edit import Graph, standard

OPSET = 13  # the first whose Split takes its sizes as an input
NODES_BYTES = 150  # what the nodes take in a file
LARGEST = 15  # the power of two that float16 still holds


def pack(graph: Graph) -> None:
    """Store them so, in place, where that makes the file smaller; the bits that the engine sees stay the same.

    All are multiplied by one power of two, so that the largest is about the largest float16.
    """
    scales = {name: np.asarray(graph.constant(name)) for name in graph.initializers if _is_scale(graph, name)}
    largest = max((float(value.max()) for value in scales.values()), default=0.0)
    if graph.opset < OPSET or not 0 < largest < np.inf:
        return
    unit = np.ldexp(np.float32(1), int(np.frexp(np.float32(largest))[1]) - LARGEST)
    halves = {name: (value / unit).astype(np.float16) for name, value in scales.items()}
    halves = {
        n: half for n, half in halves.items() if np.array_equal(half.astype(np.float32) * unit, scales[n])
    }
    sizes = [half.size for half in halves.values()]
    if 2 * sum(sizes) <= NODES_BYTES or len(sizes) < 2:
        return
    names = ("scales", "scales_unit", "scales_sizes")
    values = (np.concatenate(list(halves.values())), np.asarray(unit), np.array(sizes, np.int64))
    whole, step, cuts = [graph.add_constant(name, value) for name, value in zip(names, values, strict=True)]
    wide, real = graph.fresh("scales_wide"), graph.fresh("scales_real")
    graph.nodes.append(helper.make_node("Cast", [whole], [wide], to=onnx.TensorProto.FLOAT))
    graph.nodes.append(helper.make_node("Mul", [wide, step], [real]))
    graph.nodes.append(helper.make_node("Split", [real, cuts], list(halves)))
    for name in halves:
        del graph.initializers[name]
    graph.index()


def _is_scale(graph: Graph, name: str) -> bool:
    """Say whether a constant holds scales, one per channel."""
    tensor, readers = graph.initializers[name], graph.readers.get(name, [])
    vector = (
        tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 1 and math.prod(tensor.dims) > 0
    )
    converts = any(standard(n, "DequantizeLinear") and n.input[1] == name for n in readers)
    return vector and converts and not graph.kept(name)
