"""Half precision for what a quantized graph leaves in float, where TensorRT takes the graph's types as they are.

A cast between a dequantizer and its operator would keep the two from becoming one integer kernel, so the scales turn
float16 instead: then a quantizer reads float16 and a dequantizer makes it. Scales below float16's normal range would
lose their digits; those tensors keep float32 scales and the casts.
"""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph, attribute, standard
from ...graph.upgrade import upgrade
from ...model import Model
from ...passes import Context
from ...passes.fp16 import HALF, Fp16Options, run

OPSET = 19  # the first whose quantizers have float16 scales
NEWEST = 24  # that TensorRT's importer knows: onnx/onnx-tensorrt docs/operators.md
LEAST = float(np.finfo(np.float16).smallest_normal)


def halved(model: Model) -> Model:
    """Return a quantized graph whose float operators compute in float16; inputs and outputs keep their types."""
    raised = upgrade(model, OPSET, newest=NEWEST)
    graph = Graph(run(raised, Fp16Options(), Context()))
    for node in [n for n in graph.nodes if standard(n, "QuantizeLinear")]:
        _read_halves(graph, node)
    for node in [n for n in graph.nodes if standard(n, "DequantizeLinear")]:
        _make_halves(graph, node)
    return graph.build()


def _read_halves(graph: Graph, node: onnx.NodeProto) -> None:
    """Let a quantizer read what is cast to float32 for it, or the constant that it stands behind."""
    scale = _short(graph, node.input[1])
    maker = graph.producer.get(node.input[0])
    weights = graph.constant(node.input[0])
    if scale is None:
        return
    if weights is not None:
        source = graph.add_constant(f"{node.input[0]}_half", weights.astype(np.float16))
    elif maker is not None and standard(maker, "Cast") and maker.input[0].endswith("_fp16"):
        source = maker.input[0]
    else:
        return
    node.input[0], node.input[1] = source, graph.add_constant(f"{node.input[1]}_half", scale)


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


def _short(graph: Graph, name: str) -> np.ndarray | None:
    scale = graph.constant(name)
    if scale is None or scale.dtype != np.float32 or (scale < LEAST).any():
        return None
    return scale.astype(np.float16)
