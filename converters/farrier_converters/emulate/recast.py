"""Give a quantized graph the scales that another arithmetic has: one per tensor, symmetric, powers of two.

What a file quantized for one processor would score on one that knows fewer kinds of scales, without calibrating
again: the ranges are those of the file.
"""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.targets import Arithmetic

from ..graph.compact.loaded import loaded
from ..graph.edit import Graph, attribute, standard
from ..model import Model

BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


def fits(model: Model, arithmetic: Arithmetic) -> bool:
    """Say whether the arithmetic has the graph's kinds of scales, so that nothing needs to be recast."""
    graph = Graph(model)
    return not any(
        _affine(graph, node, arithmetic) is not None or _weights(graph, node, arithmetic)
        for node in graph.nodes
        if standard(node, "QuantizeLinear", "DequantizeLinear")
    )


def recast(model: Model, arithmetic: Arithmetic) -> Model:
    """Return the graph with the arithmetic's kinds of scales; biases become float, for the engine to round."""
    graph = Graph(model)
    for node in [n for n in graph.nodes if standard(n, "Pad")]:
        _recast_fill(graph, node, arithmetic)
    for node in [n for n in graph.nodes if standard(n, "QuantizeLinear", "DequantizeLinear")]:
        stored = graph.constant(node.input[0])
        if stored is None:
            _recast_activation(graph, node, arithmetic)
        elif stored.dtype == np.int32:
            graph.initializers[node.output[0]] = onnx.numpy_helper.from_array(
                _real(graph, node, stored), node.output[0]
            )
            graph.remove([node])
        elif _weights(graph, node, arithmetic):
            _recast_weights(graph, node, stored)
    graph.index()
    return graph.build()


def _affine(
    graph: Graph, node: onnx.NodeProto, arithmetic: Arithmetic
) -> tuple[np.float32, np.ndarray] | None:
    """Return the scale and zero point that an activation gets, None where it has them already."""
    scale, zero = _parameters(graph, node)
    if graph.constant(node.input[0]) is not None or scale is None or scale.size != 1:
        return None
    if zero.dtype not in BYTES or not arithmetic.symmetric_activations:
        return None
    info = np.iinfo(zero.dtype)
    middle = (int(info.max) + int(info.min) + 1) // 2
    if int(zero) == middle:
        return None
    reach = max(int(zero) - int(info.min), int(info.max) - int(zero))
    return np.float32(scale * reach / (info.max - middle)), np.array(middle, zero.dtype)


def _weights(graph: Graph, node: onnx.NodeProto, arithmetic: Arithmetic) -> bool:
    """Say whether these are weights with more scales than the arithmetic has."""
    stored = graph.constant(node.input[0])
    scale, _ = _parameters(graph, node)
    known = stored is not None and stored.dtype in BYTES and scale is not None
    return known and scale is not None and scale.size > 1 and not arithmetic.per_channel


def _recast_activation(graph: Graph, node: onnx.NodeProto, arithmetic: Arithmetic) -> None:
    found = _affine(graph, node, arithmetic)
    if found is None:
        return
    if standard(node, "QuantizeLinear"):
        _keep_range(graph, node)
    scale, zero = found
    node.input[1] = graph.add_constant(f"{node.input[1]}_recast", np.asarray(scale))
    _set_zero(graph, node, zero)


def _recast_fill(graph: Graph, pad: onnx.NodeProto, arithmetic: Arithmetic) -> None:
    """Let a Pad over integers fill with what stands for the same number in the new scale."""
    maker = graph.producer.get(pad.input[0])
    fill = graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else None
    if fill is None or fill.dtype not in BYTES or maker is None or not standard(maker, "QuantizeLinear"):
        return
    found = _affine(graph, maker, arithmetic)
    old_scale, old_zero = _parameters(graph, maker)
    if found is not None and old_scale is not None:
        scale, zero = found
        real = (int(fill.reshape(())) - int(old_zero)) * float(old_scale)
        integer = np.array(round(real / float(scale)) + int(zero), fill.dtype)
        pad.input[2] = graph.add_constant(f"{pad.input[2]}_recast", integer)


def _keep_range(graph: Graph, node: onnx.NodeProto) -> None:
    """Clip what the old quantizer clipped: it may stand for an activation function."""
    scale, zero = _parameters(graph, node)
    assert scale is not None
    info = np.iinfo(zero.dtype)
    bounds = [
        graph.add_constant(
            f"{node.output[0]}_bound", np.array((limit - int(zero)) * float(scale), np.float32)
        )
        for limit in (info.min, info.max)
    ]
    clipped = graph.fresh(f"{node.input[0]}_clipped")
    graph.add_node("Clip", [node.input[0], *bounds], clipped)
    node.input[0] = clipped


def _recast_weights(graph: Graph, node: onnx.NodeProto, stored: np.ndarray) -> None:
    real = _real(graph, node, stored)
    scale = np.float32(max(float(np.abs(real).max(initial=0)), 1e-20) / 127)
    integers = np.clip(np.rint(real / scale), -127, 127).astype(np.int8)
    node.input[0] = graph.add_constant(f"{node.input[0]}_recast", integers)
    node.input[1] = graph.add_constant(f"{node.input[1]}_recast", np.asarray(scale))
    _set_zero(graph, node, np.zeros((), np.int8))


def _set_zero(graph: Graph, node: onnx.NodeProto, zero: np.ndarray) -> None:
    name = graph.add_constant(f"{node.output[0]}_zero_recast", zero)
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)


def _parameters(graph: Graph, node: onnx.NodeProto) -> tuple[np.ndarray | None, np.ndarray]:
    """Return scale and zero point; where all channels of an activation have the same, it is one number."""
    scale = loaded(graph, node.input[1])
    zero = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    zero = np.zeros((), np.uint8) if zero is None else zero
    if scale is None or graph.constant(node.input[0]) is not None or not scale.size or not zero.size:
        return scale, zero
    alike = (scale == scale.flat[0]).all() and (zero == zero.flat[0]).all()
    return (np.asarray(scale.flat[0]), np.asarray(zero.flat[0])) if alike else (scale, zero)


def _real(graph: Graph, node: onnx.NodeProto, stored: np.ndarray) -> np.ndarray:
    """Return the numbers that stored integers stand for, float32."""
    scale, zero = _parameters(graph, node)
    assert scale is not None
    if scale.size > 1:
        shape = [1] * stored.ndim
        shape[attribute(node, "axis", 1)] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.size > 1 else zero
    return ((stored.astype(np.int64) - zero.astype(np.int64)) * scale).astype(np.float32)
