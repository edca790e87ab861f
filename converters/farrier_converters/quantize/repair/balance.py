"""Cross-layer equalisation that weighs activations too: the factors that leave the least noise with one scale a tensor.

After Nagel et al. 2019, arXiv 1906.04721, section 4.1, who make the ranges of neighbouring weights alike. That widens
the range of an activation whose channel has small weights and a large bias. Here the noise of rounding is written
down, and made least: a tensor, rounded in steps of its reach / 127, hands each channel's noise to the layers
that read it, a weight hands its own times the mean square of what it meets. Both are sums of products of powers of
the factors: a geometric program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError

from ...graph import run
from ...graph.edit import Graph, standard
from ...model import Model
from . import geometric
from .equalization import HOMOGENEOUS
from .groups import RESHAPES, Layer, Scalable

TINY = 1e-30
CREST = 4.0  # see `Extent.reach`
MARGIN = 1.1  # over what calibration shows, below a Clip's bound
Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


@dataclass(frozen=True)
class Extent:
    """What a tensor takes in each channel on the calibration data: float64 [channels] each."""

    peak: np.ndarray
    square: np.ndarray  # mean square

    @property
    def reach(self) -> np.ndarray:
        """How far a channel counts: between its largest and its typical magnitude, for a quantizer clips the rarest.

        One whose largest magnitude is `CREST` times its root mean square counts as far as that.
        """
        return np.sqrt(CREST * self.peak * np.sqrt(self.square))


def balance(graph: Graph, found: Scalable, extents: dict[str, Extent]) -> list[np.ndarray]:
    """Return each group's factors, float64 [channels], for one symmetric scale per tensor.

    `extents` holds those of `measured`.
    """
    weights = _importance(graph, found, extents)
    terms = [_of_weights(layer, weights, extents) for layer in found.layers]
    for name, group in found.groups.items():
        readers = graph.readers.get(name, [])
        if not (len(readers) == 1 and standard(readers[0], "Relu", "LeakyRelu", "Clip")):
            scale, reach = geometric.peak(extents[name].reach, (group, -1.0))
            noise = geometric.Sum(_weight(weights, name, extents), ((group, 2.0),))
            terms.append(geometric.Term(scale, (reach, noise)))
    bounds = _bounds(found, extents)
    return [np.exp(logs) for logs in geometric.least(terms, found.channels, bounds)]


def _bounds(found: Scalable, extents: dict[str, Extent]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return how far the logarithms of each group with a Clip may go.

    A channel that it clips keeps its size; one that does not come near may grow until it does.
    """
    bounds: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for name, top in found.clips.items():
        group, reach = found.groups[name], np.maximum(extents[name].peak * MARGIN / top, TINY)
        free = reach < 1
        low = np.where(free, np.maximum(np.log(reach), -geometric.LARGEST), 0.0)
        high = np.where(free, geometric.LARGEST, 0.0)
        before = bounds.get(group, (low, high))
        bounds[group] = np.maximum(low, before[0]), np.minimum(high, before[1])
    return bounds


def measured(found: Scalable) -> list[str]:
    """Return the tensors whose extents are wanted: those that can be scaled, and those around layers."""
    around = [name for layer in found.layers for name in (layer.node.input[0], layer.node.output[0])]
    return list(dict.fromkeys([*around, *found.groups]))


def measure(model: Model, names: list[str], batches: Batches) -> dict[str, Extent]:
    """Return the extents of tensors [batch, channels, ...] of known rank over all batches; the graph reduces them.

    Raises InputError for data that the model cannot run on, for no data, and for values that are not finite.
    """
    probe = Graph(model)
    asked = [reduced for name in names for reduced in _reduced(probe, name)]
    probe.outputs.extend(asked)  # keeps them alive
    session = run.session(run.up_to(probe.build().proto, asked), threads=run.THREADS)
    peaks: list[np.ndarray] = []
    squares: list[np.ndarray] = []
    count = 0
    for feeds in batches():
        try:
            values = [np.asarray(v, np.float64).ravel() for v in session.run(asked, feeds)]
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        if not all(np.isfinite(value).all() for value in values):
            raise InputError("a tensor is not finite on the calibration data; check data and model")
        peaks = [np.maximum(a, b) for a, b in zip(peaks, values[::2], strict=True)] if count else values[::2]
        squares = [a + b for a, b in zip(squares, values[1::2], strict=True)] if count else values[1::2]
        count += 1
    if not count:
        raise InputError("the calibration data holds no samples")
    return {n: Extent(p, s / count) for n, p, s in zip(names, peaks, squares, strict=True)}


def _reduced(graph: Graph, name: str) -> tuple[str, str]:
    """Add what finds the largest magnitude and the mean square of each channel; [channels] each."""
    flat, turned, peak, square, total = (
        graph.fresh(f"{name}_{part}") for part in ("flat", "turned", "peak", "square", "mean")
    )
    shape = graph.add_constant(f"{name}_flat_shape", np.array([0, 0, -1]))
    graph.add_node("Reshape", [name, shape], flat)
    graph.add_node("Abs", [flat], turned)
    graph.add_node("Mul", [flat, flat], square)
    for op, source, result in (("ReduceMax", turned, peak), ("ReduceMean", square, total)):
        if graph.opset < 18:
            graph.add_node(op, [source], result, axes=[0, 2], keepdims=0)
        else:
            graph.add_node(
                op, [source, graph.add_constant(f"{name}_axes", np.array([0, 2]))], result, keepdims=0
            )
    return peak, total


def _importance(graph: Graph, found: Scalable, extents: dict[str, Extent]) -> dict[str, np.ndarray]:
    """Return what a unit of noise in each channel of a tensor adds to the noise-to-signal ratios of dense layers.

    It counts at the first dense layer that it reaches on each way; depthwise ones, activations and sums pass it on.
    """
    layers = {id(layer.node): layer for layer in found.layers}
    weights: dict[str, np.ndarray] = {}
    for name in [*graph.outputs, *(layer.node.output[0] for layer in found.layers)]:
        if name in extents and name not in found.groups:
            weights[name] = np.full(extents[name].square.shape, _share(extents[name]))
    for node in reversed(graph.nodes):
        layer, result = layers.get(id(node)), node.output[0]
        if layer is not None and not layer.depthwise:
            passed = np.square(layer.weight).sum(axis=(0, 2)) * _share(extents[result])
        elif layer is not None:
            passed = np.square(layer.weight).sum(axis=(1, 2)) * _weight(weights, result, extents)
        elif result in found.groups and standard(node, *HOMOGENEOUS, *RESHAPES, "Add", "Clip"):
            passed = _weight(weights, result, extents)
        else:
            continue
        for name in node.input if standard(node, "Add") else node.input[:1]:
            if name in found.groups:
                weights[name] = weights.get(name, 0.0) + passed
    return weights


def _share(extent: Extent) -> float:
    return 1 / max(float(extent.square.sum()), TINY)


def _weight(weights: dict[str, np.ndarray], name: str, extents: dict[str, Extent]) -> np.ndarray:
    return weights.get(name, np.zeros_like(extents[name].peak))


def _of_weights(layer: Layer, weights: dict[str, np.ndarray], extents: dict[str, Extent]) -> geometric.Term:
    """Return the noise that rounding a layer's weights makes."""
    made = _weight(weights, layer.node.output[0], extents)
    met = layer.weight.shape[2] * extents[layer.node.input[0]].square
    magnitudes = np.abs(layer.weight).max(axis=2)
    if layer.depthwise:
        scale, most = geometric.peak(magnitudes[:, 0], (layer.source, 1.0), (layer.result, -1.0))
        noise = geometric.Sum(made * met, ((layer.source, -2.0), (layer.result, 2.0)))
        return geometric.Term(scale, (most, noise))
    scale, most = geometric.largest(magnitudes, layer.source, layer.result)
    valued = geometric.Sum(made, ((layer.result, 2.0),))
    return geometric.Term(scale, (most, valued, geometric.Sum(met, ((layer.source, -2.0),))))
