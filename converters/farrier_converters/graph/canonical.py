"""Write the same arithmetic in the operators that have integer kernels."""

from __future__ import annotations

import numpy as np
import onnx

from .edit import Graph, set_attribute, standard

SMALLEST_DIVISOR = 1e-6  # of a constant whose reciprocal is multiplied by instead
OPSET = 7  # the first whose Add and Mul broadcast as numpy does


def canonical(graph: Graph) -> None:
    """Turn, in place, Sub and Div by constants into Add and Mul, Sum of two into Add, uniform PRelu into LeakyRelu.

    ONNX Runtime has integer kernels for the latter of each pair only. Results are equal to float32 rounding.
    """
    if graph.opset < OPSET:
        return
    for node in graph.nodes:
        if standard(node, "Sum") and len(node.input) == 2:
            node.op_type = "Add"
        elif standard(node, "Sub", "Div"):
            _to_inverse(graph, node)
        elif standard(node, "PRelu"):
            _to_leaky(graph, node)
    graph.index()


def _to_inverse(graph: Graph, node: onnx.NodeProto) -> None:
    value = graph.constant(node.input[1])
    if value is None or value.dtype != np.float32 or graph.constant(node.input[0]) is not None:
        return
    if node.op_type == "Div":
        if not np.isfinite(value).all() or (np.abs(value) < SMALLEST_DIVISOR).any():
            return
        node.op_type, inverse = "Mul", np.float32(1) / value
    else:
        node.op_type, inverse = "Add", -value
    node.input[1] = graph.add_constant(f"{node.input[1]}_inverse", inverse)


def _to_leaky(graph: Graph, node: onnx.NodeProto) -> None:
    slope = graph.constant(node.input[1])
    if slope is None or slope.dtype != np.float32 or not slope.size or (slope != slope.flat[0]).any():
        return
    node.op_type = "LeakyRelu"
    set_attribute(node, "alpha", float(slope.flat[0]))
    del node.input[1:]
