"""Bias correction: take back the mean error that rounding and clipping leave in each channel of a layer.

Source: Nagel et al. 2019, arXiv 1906.04721, section 4.2, measured on calibration data. Each layer is corrected on
the inputs of the float network, so that corrections do not feed on each other along residual connections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import onnx

from farrier_contracts.targets import Arithmetic

from ...graph import run
from ...graph.edit import Graph, attribute, standard
from ...model import Model
from .. import scales
from ..placement import Placement
from ..scales import Affine

BATCHES = 16  # of calibration data, at most
Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


def correct(
    graph: Graph,
    plan: Placement,
    affine: Callable[[str], Affine],
    arithmetic: Arithmetic,
    method: str,
    batches: Batches,
) -> int:
    """Add to the biases of Conv and Gemm what their integer forms lose on average; returns how many were corrected."""
    probe = Graph(graph.build())
    layers: dict[str, onnx.NodeProto] = {}
    for node in [n for n in graph.nodes if id(n) in plan.integer and standard(n, "Conv", "Gemm")]:
        weight = graph.constant(node.input[1])
        if weight is not None and len(node.input) > 2 and graph.constant(node.input[2]) is not None:
            axis = 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1
            integers, scale = scales.weights(
                weight,
                bits=arithmetic.weight_bits,
                axis=axis if arithmetic.per_channel else None,
                method=method,
                power_of_two=arithmetic.power_of_two_scales,
            )
            shape = [-1 if a == axis else 1 for a in range(weight.ndim)]
            rounded = (integers * (scale.reshape(shape) if scale.ndim else scale)).astype(np.float32)
            layers[_lost(probe, node, affine(node.input[0]), rounded, weight.ndim)] = node
    if not layers:
        return 0
    probe.outputs.extend(layers)  # keeps them alive
    session = run.session(run.with_outputs(probe.build().proto, list(layers)))
    total = [np.zeros(1)] * len(layers)
    count = 0
    for feeds in islice(batches(), BATCHES):
        count += 1
        found = session.run(list(layers), feeds)
        total = [t + np.ravel(np.asarray(v, np.float64)) for t, v in zip(total, found, strict=True)]
    for lost, node in zip(total, layers.values(), strict=True):
        bias = graph.constant(node.input[2])
        assert bias is not None
        corrected = bias.reshape(-1) + lost / max(count, 1)
        node.input[2] = graph.add_constant(f"{node.input[2]}_corrected", corrected.astype(np.float32))
    return len(layers)


def _lost(graph: Graph, node: onnx.NodeProto, affine: Affine, rounded: np.ndarray, rank: int) -> str:
    """Add the layer as integers would compute it, and return the mean over all but channels of what is missing."""
    result = node.output[0]
    names = {
        n: graph.fresh(f"{result}_{n}") for n in ("clipped", "integers", "real", "copy", "missing", "lost")
    }
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
    axes = [a for a in range(rank) if a != 1]
    if graph.opset < 18:
        graph.add_node("ReduceMean", [names["missing"]], names["lost"], axes=axes, keepdims=0)
    else:
        over = graph.add_constant(f"{result}_axes", np.array(axes))
        graph.add_node("ReduceMean", [names["missing"], over], names["lost"], keepdims=0)
    return names["lost"]


def closer(model: Model, candidates: list[Model], batches: Batches) -> Model:
    """Return the candidate whose float outputs are nearest to the model's on the calibration data."""
    sessions = [run.session(m.proto) for m in (model, *candidates)]
    errors = np.zeros(len(candidates))
    for feeds in islice(batches(), BATCHES):
        wanted, *found = ([np.asarray(v) for v in session.run(None, feeds)] for session in sessions)
        for index, values in enumerate(found):
            errors[index] += sum(
                float(np.square(a.astype(np.float64) - b).mean())
                for a, b in zip(values, wanted, strict=True)
                if b.dtype.kind == "f" and a.shape == b.shape
            )
    return candidates[int(errors.argmin())]
