"""Half precision for what a quantized graph leaves in float, where TensorRT takes the graph's types as they are.

A cast between a dequantizer and its operator would keep the two from becoming one integer kernel, so the scales turn
float16 instead: then a quantizer reads float16 and a dequantizer makes it. The scales of weights are rounded up to
float16, with integers to match: a channel that is all but dead may have one below float16's normal range. Activations
with such scales keep float32 and the casts.
"""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, standard
from ...graph.types import TensorType, infer
from ...graph.upgrade import upgrade
from ...model import Model
from ...passes import Context
from ...passes.fp16 import HALF, LARGEST, Fp16Options, run

OPSET = 19  # the first whose quantizers have float16 scales
NEWEST = 24  # that TensorRT's importer knows: onnx/onnx-tensorrt docs/operators.md
LEAST = float(np.finfo(np.float16).smallest_normal)


def halved(model: Model) -> Model:
    """Return a quantized graph whose float operators compute in float16; inputs and outputs keep their types."""
    raised = upgrade(model, OPSET, newest=NEWEST)
    graph = Graph(run(raised, Fp16Options(), Context()))
    for node in [n for n in graph.nodes if standard(n, "DequantizeLinear")]:
        _shorten_weights(graph, node)
    types = infer(graph.without_weights())
    for node in [n for n in graph.nodes if standard(n, "QuantizeLinear")]:
        _read_halves(graph, types, node)
    for node in [n for n in graph.nodes if standard(n, "DequantizeLinear")]:
        _make_halves(graph, node)
    return graph.build()


def shortened(integers: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return int8 weights and float16 scales that stand for the same numbers, the scales rounded up.

    Both broadcast together, as given.
    """
    short = scale.astype(np.float16)
    short = np.where(short < scale, np.nextafter(short, np.float16(np.inf)), short).astype(np.float16)
    return np.rint(integers * (scale / short.astype(np.float64))).astype(np.int8), short


def _shorten_weights(graph: Graph, node: onnx.NodeProto) -> None:
    integers, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
    if integers is None or scale is None or integers.dtype != np.int8 or (scale > LARGEST).any():
        return
    axis = attribute(node, "axis", 1) % max(integers.ndim, 1)
    spread = (
        scale.reshape([-1 if a == axis else 1 for a in range(integers.ndim)]) if scale.size > 1 else scale
    )
    values, short = shortened(integers, spread)
    node.input[0] = graph.add_constant(f"{node.input[0]}_half", values)
    node.input[1] = graph.add_constant(f"{node.input[1]}_half", short.reshape(scale.shape))


def _read_halves(graph: Graph, types: dict[str, TensorType], node: onnx.NodeProto) -> None:
    """Let a quantizer read the float16 that is cast to float32 for it."""
    scale, maker = _short(graph, node.input[1]), graph.producer.get(node.input[0])
    if scale is None or maker is None or not standard(maker, "Cast") or not _is_half(types, maker.input[0]):
        return
    node.input[0], node.input[1] = maker.input[0], graph.add_constant(f"{node.input[1]}_half", scale)


def _make_halves(graph: Graph, node: onnx.NodeProto) -> None:
    """Let a dequantizer make float16 where all its readers cast to that."""
    scale = _short(graph, node.input[1])
    readers = graph.readers.get(node.output[0], [])
    casts = all(standard(reader, "Cast") and attribute(reader, "to") == HALF for reader in readers)
    if scale is None or not readers or not casts or graph.kept(node.output[0]):
        return
    node.input[1] = graph.add_constant(f"{node.input[1]}_half", scale)
    for reader in readers:
        graph.rename_reads(reader.output[0], node.output[0])
    graph.remove(readers)


def _is_half(types: dict[str, TensorType], name: str) -> bool:
    return name in types and types[name].dtype == HALF


def _short(graph: Graph, name: str) -> np.ndarray | None:
    """Return a scale in float16, None where it would lose its digits."""
    scale = graph.constant(name)
    if scale is None or (scale.dtype == np.float32 and not ((scale >= LEAST) & (scale <= LARGEST)).all()):
        return None
    return scale.astype(np.float16)
