"""Write quantized graphs as TensorRT's importer reads them, with the same integers and scales.

Biases are plain float32: it takes no 32-bit integers ("only activation types allowed as input to this layer":
onnx/onnx-tensorrt issue 850, microsoft/onnxruntime issue 14229). Weights stay int8, as releases from 10 on take them
(its documentation of operators, Constant and Dequantize); for older ones the agent puts a quantizer before them. Only
signed integers with a zero point of 0 are read: NVIDIA, "Quantization Schemes".
"""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ...graph.compact.loaded import loaded
from ...graph.edit import Graph, attribute, standard
from ...model import Model

PLUMBING = ("QuantizeLinear", "DequantizeLinear")


def lowered(model: Model) -> Model:
    """Return a graph that computes the same; one without quantizers comes back as it is.

    Raises InputError for what TensorRT cannot read.
    """
    if not any(standard(node, *PLUMBING) for node in model.proto.graph.node):
        return model
    graph = Graph(model)
    for node in [n for n in graph.nodes if standard(n, *PLUMBING)]:
        _check(graph, node)
        stored = graph.constant(node.input[0])
        if standard(node, "QuantizeLinear") or stored is None:
            continue
        if stored.dtype == np.int32:
            _replace_by_constant(graph, node, _real(graph, node, stored))
        else:
            _state_zero(graph, node, stored)
    return graph.build()


def _check(graph: Graph, node: onnx.NodeProto) -> None:
    """Refuse what is not symmetric, and activations that are quantized per channel or in other than 8 bits."""
    named = node.name or node.output[0]
    stored = graph.constant(node.input[0])
    scale = loaded(graph, node.input[1])
    zero = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if scale is None:
        raise InputError(f"the scale of {named} is computed while the model runs, TensorRT wants a constant")
    if zero is not None and zero.any():
        raise InputError(f"{named} has a zero point other than 0, and TensorRT quantizes symmetrically alone")
    kind = zero.dtype if zero is not None else stored.dtype if stored is not None else np.dtype(np.uint8)
    constants = (np.dtype(np.int8), np.dtype(np.int32))
    if kind not in (constants if stored is not None else constants[:1]):
        raise InputError(f"{named} makes {kind}, and TensorRT's integers are int8: quantize for this target")
    if stored is None and scale.size != 1 and standard(node, "DequantizeLinear"):
        raise InputError(f"{named} has a scale per channel of an activation; TensorRT wants one per tensor")
    if stored is None and standard(node, "DequantizeLinear"):
        maker = graph.producer.get(node.input[0])
        if maker is None or not standard(maker, "QuantizeLinear"):
            raise InputError(
                f"{named} reads integers that are no quantizer's: TensorRT wants Q and DQ in pairs"
            )


def _real(graph: Graph, node: onnx.NodeProto, stored: np.ndarray) -> np.ndarray:
    """Return what stored integers stand for, float32."""
    scale = loaded(graph, node.input[1])
    assert scale is not None
    if scale.size > 1:
        axis = attribute(node, "axis", 1) % max(stored.ndim, 1)
        scale = scale.reshape([-1 if a == axis else 1 for a in range(stored.ndim)])
    return (stored.astype(np.float64) * scale.reshape(scale.shape if scale.size > 1 else ())).astype(
        np.float32
    )


def _replace_by_constant(graph: Graph, node: onnx.NodeProto, value: np.ndarray) -> None:
    graph.rename_reads(node.output[0], graph.add_constant(f"{node.output[0]}_float", value))
    graph.remove([node])


def _state_zero(graph: Graph, node: onnx.NodeProto, stored: np.ndarray) -> None:
    """Give weights their zero point, where it was left out for being 0: the agent's quantizer has the same."""
    scale = loaded(graph, node.input[1])
    assert scale is not None
    zero = graph.add_constant(f"{node.output[0]}_zero", np.zeros(scale.shape, stored.dtype))
    del node.input[2:]
    node.input.append(zero)
