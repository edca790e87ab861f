"""Bias correction: take back the mean error that rounding and clipping leave in each channel of a layer.

Source: Nagel et al. 2019, arXiv 1906.04721, section 4.2, measured on calibration data, or from the mean of each channel
that is known without any. Each layer is corrected on the inputs of the float network, so that corrections do not feed
on each other along residual connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx

from ...graph import run
from ...graph.edit import Graph, attribute, standard
from ...graph.types import infer
from ...model import Model
from ..nearest import NearestSettings, limited
from ..rewrite import QdqWriter
from ..scales import Affine

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]
ROWS = NearestSettings(rows=256, values=1 << 23)


def correct(writer: QdqWriter, batches: Batches, settings: NearestSettings = ROWS) -> int:
    """Add to the biases of Conv and Gemm what their integer forms lose on average; returns how many were corrected.

    The writer knows its ranges and has not written yet.
    """
    graph = writer.graph
    probe = Graph(graph.build())
    layers: dict[str, onnx.NodeProto] = {}
    for node in _correctable(writer):
        rounded = writer.rounded(node)
        layers[_lost(probe, node, writer.affine(node.input[0]), rounded)] = node
    if not layers:
        return 0
    probe.outputs.extend(layers)  # keeps them alive
    session = run.session(run.up_to(probe.build().proto, list(layers)), threads=run.THREADS)
    total = [np.zeros(1)] * len(layers)
    count = 0
    for feeds in limited(batches(), settings):
        count += 1
        found = session.run(list(layers), feeds)
        total = [t + np.ravel(np.asarray(v, np.float64)) for t, v in zip(total, found, strict=True)]
    for lost, node in zip(total, layers.values(), strict=True):
        _add(graph, node, lost / max(count, 1))
    return len(layers)


def correct_by_means(writer: QdqWriter, means: Mapping[str, np.ndarray]) -> int:
    """Add to the biases what rounded weights lose on average where the channels of their inputs have these means.

    Only weights are looked at, not what rounding the inputs loses; returns how many layers were corrected.
    """
    layers = [node for node in _correctable(writer) if node.input[0] in means]
    for node in layers:
        _add(writer.graph, node, _missing(writer, node, means[node.input[0]]))
    return len(layers)


def input_means(model: Model, twin: Model, batches: Batches) -> dict[str, np.ndarray]:
    """Return the mean of each channel, float64, of what the Conv and Gemm of a model read and its twin has too.

    That is of all of them, whichever will be corrected: the engine rounds otherwise where fewer tensors are asked for.
    """
    graph, probe = Graph(model), Graph(twin)
    known = infer(twin.proto).keys() - {spec.name for spec in twin.inputs}
    layers = [n for n in graph.nodes if standard(n, "Conv", "Gemm") and n.input[0] in known]
    weights = {node.input[0]: graph.constant(node.input[1]) for node in layers}
    asked = {n: _channel_means(probe, n, w.ndim) for n, w in weights.items() if w is not None}
    if not asked:
        return {}
    names = list(asked.values())
    probe.outputs.extend(names)  # keeps them alive
    session = run.session(run.up_to(probe.build().proto, names), threads=run.THREADS)
    sums, count = [np.zeros(1)] * len(names), 0
    for feeds in batches():
        count += 1
        found = (np.asarray(v, np.float64).ravel() for v in session.run(names, feeds))
        sums = [s + v for s, v in zip(sums, found, strict=True)]
    return {name: total / max(count, 1) for name, total in zip(asked, sums, strict=True)}


def _missing(writer: QdqWriter, node: onnx.NodeProto, mean: np.ndarray) -> np.ndarray:
    """Return what rounded weights take from each channel of the result where the inputs have these means."""
    weight = writer.graph.constant(node.input[1])
    assert weight is not None
    missing, groups = weight.astype(np.float64) - writer.rounded(node), 1
    if node.op_type == "Conv":
        groups = attribute(node, "group", 1)
        missing = missing.sum(axis=tuple(range(2, missing.ndim)))
    elif not attribute(node, "transB", 0):
        missing = missing.T
    inputs = groups * missing.shape[1]
    filled = np.pad(mean, (0, max(inputs - mean.size, 0)))[:inputs]  # channels that were added hold zeros
    return (
        (missing.reshape(groups, -1, missing.shape[1]) * filled.reshape(groups, 1, -1)).sum(axis=-1).ravel()
    )


def _correctable(writer: QdqWriter) -> list[onnx.NodeProto]:
    """Return the layers with constant weights and a bias of their own that will be integers."""
    graph = writer.graph
    layers = [n for n in graph.nodes if id(n) in writer.plan.integer and standard(n, "Conv", "Gemm")]
    return [
        n
        for n in layers
        if graph.constant(n.input[1]) is not None
        and len(n.input) > 2
        and graph.constant(n.input[2]) is not None
        and attribute(n, "beta", 1.0) == 1.0
    ]


def _add(graph: Graph, node: onnx.NodeProto, lost: np.ndarray) -> None:
    bias = graph.constant(node.input[2])
    assert bias is not None
    corrected = bias.reshape(-1) + lost
    node.input[2] = graph.add_constant(f"{node.input[2]}_corrected", corrected.astype(np.float32))


def _lost(graph: Graph, node: onnx.NodeProto, affine: Affine, rounded: np.ndarray) -> str:
    """Add the layer as integers would compute it, and return the mean over all but channels of what is missing."""
    result = node.output[0]
    names = {n: graph.fresh(f"{result}_{n}") for n in ("clipped", "integers", "real", "copy", "missing")}
    low, high = (float(affine.scale) * (q - affine.zero_point) for q in (0, affine.levels))
    limits = [graph.add_constant(f"{result}_{v}", np.array(v, np.float32)) for v in (low, high)]
    parameters = [
        graph.add_constant(f"{result}_step", np.asarray(affine.scale)),
        graph.add_constant(f"{result}_zero", np.array(affine.zero_point, np.uint8)),
    ]
    graph.add_node("Clip", [node.input[0], *limits], names["clipped"])
    graph.add_node("QuantizeLinear", [names["clipped"], *parameters], names["integers"])
    graph.add_node("DequantizeLinear", [names["integers"], *parameters], names["real"])
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = names["copy"]
    copy.input[0], copy.input[1] = names["real"], graph.add_constant(f"{result}_rounded", rounded)
    copy.output[0] = names["copy"]
    graph.nodes.append(copy)
    graph.add_node("Sub", [result, names["copy"]], names["missing"])
    return _channel_means(graph, names["missing"], rounded.ndim)


def _channel_means(graph: Graph, name: str, rank: int) -> str:
    """Add the mean of a tensor over all axes but that of channels."""
    result, axes = graph.fresh(f"{name}_means"), [a for a in range(rank) if a != 1]
    if graph.opset < 18:
        graph.add_node("ReduceMean", [name], result, axes=axes, keepdims=0)
    else:
        over = graph.add_constant(f"{name}_axes", np.array(axes))
        graph.add_node("ReduceMean", [name, over], result, keepdims=0)
    return result
