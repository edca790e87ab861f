"""A twin of a network whose batch norms normalise made-up inputs as they did the training data."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from ...graph import run
from ...graph.edit import Graph, attribute, reads, standard
from ...graph.types import TensorType, infer
from ...model import Model

LEAST_OPSET = 9  # before, batch norms had a training mode of their own, and Max and Min did not broadcast
AXES_AS_INPUT = 18  # operator set in which the axes of ReduceMean became an input
LINEAR = ("Conv", "Gemm")
# Networks with these keep their own moments, whatever comes in.
NORMALISING = ("BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization")
LEAST, MOST = 0.5, 2.0  # deviation of what leaves a layer
FARTHEST = 1.0  # its mean from zero
EPSILON = 1e-2  # of a variance; a channel that noise leaves dead is not blown up
FEWEST_ROWS = 8  # values per channel and run for a layer without batch norm
FEWEST_VALUES = 64  # per channel and run; moments of fewer say nothing
LEAST_SHARE = 1e-2  # of the trained variance: a channel that noise leaves dead is not blown up further


@dataclass(frozen=True)
class _Layer:
    """A tensor whose moments are imposed. `node` makes it; `mean` and `variance` name what one run finds of it."""

    node: onnx.NodeProto
    mean: str
    variance: str


def twin(model: Model, batches: Callable[[], Iterator[dict[str, np.ndarray]]]) -> Model | None:
    """Return the network with statistics of its own for these inputs; None where nothing is known of them.

    Every tensor keeps its name. What leaves a batch norm has, per channel, the mean beta and the deviation gamma, as
    it had for the training data, whatever noise the inputs are: so the ranges of the twin are near those of the
    original on real data (the statistics are the ones that Nagel et al. 2019 use, arXiv 1906.04721; here they are
    imposed on a run instead of assumed normal, so that sums, pools and clips need no formulas). Where batch norms
    have been folded away, or there were none, what leaves an inner Conv or Gemm is brought to a mean within -1..1
    and a deviation within 1/2..2, between which folded batch norms and trained layers keep nearly all channels.
    """
    first = next(batches(), None)
    if first is None:
        return None
    rows = max((len(value) for value in first.values() if value.ndim), default=1)
    live = Graph(model)
    types = infer(live.without_weights())
    norms = [n for n in live.nodes if _values(live, n, types, rows) >= FEWEST_VALUES]
    layers = [_live_norm(live, n, types) for n in norms]
    if not norms and live.opset >= LEAST_OPSET and not any(standard(n, *NORMALISING) for n in live.nodes):
        layers = [_live_layer(live, n, types) for n in _inner_layers(live, types, rows)]
    if not layers:
        return None
    names = [name for layer in layers for name in (layer.mean, layer.variance)]
    session = run.session(run.up_to(live.build().proto, names), threads=run.THREADS)
    try:
        found = [session.run(names, feeds) for feeds in batches()]
    except run.runtime_errors():
        return None
    moments = [
        np.stack([np.ravel(v).astype(np.float64) for v in values]) for values in zip(*found, strict=True)
    ]
    baked = Graph(model)
    for position, layer in enumerate(layers):
        mean, variance = moments[2 * position], moments[2 * position + 1]
        bake = _bake_norm if standard(layer.node, "BatchNormalization") else _bake_layer
        bake(baked, layer.node, mean.mean(axis=0), variance.mean(axis=0) + mean.var(axis=0))
    return baked.build()


def _values(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType], rows: int) -> int:
    """Return how many values per channel a batch norm sees in one run; 0 for any other node."""
    known = standard(node, "BatchNormalization") and graph.opset >= LEAST_OPSET and not any(node.output[1:])
    if not known or any(graph.constant(name) is None for name in node.input[1:5]):
        return 0
    return _per_channel(types.get(node.input[0]), rows)


def _per_channel(kind: TensorType | None, rows: int) -> int:
    if kind is None or kind.shape is None or len(kind.shape) < 2:
        return 0
    return rows * math.prod(size or 1 for size in kind.shape[2:])


def _inner_layers(graph: Graph, types: dict[str, TensorType], rows: int) -> list[onnx.NodeProto]:
    """Return the layers with weights and bias of their own whose results reach other such layers."""
    wanted: set[str] = set()
    found = []
    for node in reversed(graph.nodes):
        inner = bool(wanted.intersection(node.output))
        linear = standard(node, *LINEAR)
        if inner or linear:
            wanted |= reads(node)
        own = len(node.input) == 3 and all(graph.constant(n) is not None for n in node.input[1:])
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        if (
            inner
            and linear
            and own
            and plain
            and _per_channel(types.get(node.output[0]), rows) >= FEWEST_ROWS
        ):
            found.append(node)
    return found[::-1]


def _live_norm(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> _Layer:
    """Put the moments of the run in the place of the stored ones."""
    source, result = node.input[0], node.output[0]
    rank = len(types[source].shape or ())
    layer, centred, deviation = _moments(graph, node, source, result, rank, attribute(node, "epsilon", 1e-5))
    gamma, beta = (
        graph.add_constant(f"{result}_{n}", _spread(graph.constant(node.input[i]), rank))
        for i, n in ((1, "gamma"), (2, "beta"))
    )
    standardised, scaled = (graph.fresh(f"{result}_{step}") for step in ("standard", "scaled"))
    graph.add_node("Div", [centred, deviation], standardised)
    graph.add_node("Mul", [standardised, gamma], scaled)
    graph.add_node("Add", [scaled, beta], result)
    graph.remove([node])
    return layer


def _live_layer(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> _Layer:
    """Bring what a layer puts out into the customary moments."""
    result = node.output[0]
    rank = len(types[result].shape or ())
    inner = copy.deepcopy(node)
    source = inner.output[0] = graph.fresh(f"{result}_as_is")
    graph.remove([node])
    graph.nodes.append(inner)
    layer, centred, deviation = _moments(graph, node, source, result, rank, EPSILON)
    limits = {
        n: graph.add_constant(f"{result}_{n}", np.array(v, np.float32))
        for n, v in (("least", LEAST), ("most", MOST), ("low", -FARTHEST), ("high", FARTHEST))
    }
    standardised, wanted, scaled, mean = (
        graph.fresh(f"{result}_{step}") for step in ("standard", "wanted", "scaled", "kept_mean")
    )
    graph.add_node("Div", [centred, deviation], standardised)
    _between(graph, deviation, limits["least"], limits["most"], wanted)
    _between(graph, layer.mean, limits["low"], limits["high"], mean)
    graph.add_node("Mul", [standardised, wanted], scaled)
    graph.add_node("Add", [scaled, mean], result)
    return layer


def _moments(
    graph: Graph, node: onnx.NodeProto, source: str, result: str, rank: int, epsilon: float
) -> tuple[_Layer, str, str]:
    """Add the moments per channel of `source`; return them, the centred tensor and the deviation."""
    axes = [a for a in range(rank) if a != 1]
    small = graph.add_constant(f"{result}_epsilon", np.array(epsilon, np.float32))
    steps = ("mean", "centred", "squared", "variance", "shifted", "deviation")
    mean, centred, squared, variance, shifted, deviation = (graph.fresh(f"{result}_{step}") for step in steps)
    _mean(graph, source, mean, axes)
    graph.add_node("Sub", [source, mean], centred)
    graph.add_node("Mul", [centred, centred], squared)
    _mean(graph, squared, variance, axes)
    graph.add_node("Add", [variance, small], shifted)
    graph.add_node("Sqrt", [shifted], deviation)
    return _Layer(node, mean, variance), centred, deviation


def _mean(graph: Graph, source: str, result: str, axes: list[int]) -> None:
    if graph.opset < AXES_AS_INPUT:
        graph.add_node("ReduceMean", [source], result, axes=axes, keepdims=1)
        return
    graph.add_node(
        "ReduceMean", [source, graph.add_constant(f"{result}_axes", np.array(axes))], result, keepdims=1
    )


def _between(graph: Graph, source: str, low: str, high: str, result: str) -> None:
    """Clip; the operator of that name takes limits as inputs only from operator set 11 on."""
    raised = graph.fresh(f"{result}_raised")
    graph.add_node("Max", [source, low], raised)
    graph.add_node("Min", [raised, high], result)


def _spread(value: np.ndarray | None, rank: int) -> np.ndarray:
    assert value is not None
    return value.reshape([1, -1] + [1] * (rank - 2))


def _bake_norm(graph: Graph, norm: onnx.NodeProto, mean: np.ndarray, variance: np.ndarray) -> None:
    node = graph.producer[norm.output[0]]
    trained = graph.constant(node.input[4])
    assert trained is not None
    least = np.maximum(variance, trained.astype(np.float64) * LEAST_SHARE)
    for position, value in ((3, mean), (4, least)):
        stored = value.astype(trained.dtype)
        node.input[position] = graph.add_constant(f"{norm.output[0]}_{position}", stored)


def _bake_layer(graph: Graph, layer: onnx.NodeProto, mean: np.ndarray, variance: np.ndarray) -> None:
    node = graph.producer[layer.output[0]]
    weight, bias = (graph.constant(name) for name in node.input[1:3])
    assert weight is not None
    assert bias is not None
    deviation = np.sqrt(variance + EPSILON)
    scale = np.clip(deviation, LEAST, MOST) / deviation
    shift = (bias.reshape(-1) - mean) * scale + np.clip(mean, -FARTHEST, FARTHEST)
    first = node.op_type == "Conv" or attribute(node, "transB", 0)
    spread = scale.reshape([-1 if a == (0 if first else 1) else 1 for a in range(weight.ndim)])
    node.input[1] = graph.add_constant(f"{layer.output[0]}_weight", (weight * spread).astype(np.float32))
    node.input[2] = graph.add_constant(f"{layer.output[0]}_bias", shift.astype(np.float32))
