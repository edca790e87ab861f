"""Even out channels: what flows into a depthwise convolution gets one size in all of its channels.

Every channel of such a tensor can be divided in the layer before and multiplied back in the depthwise one behind.
Where weights have a scale per channel that costs nothing, and the one scale of the tensor then serves all channels.
The idea is that of cross-layer equalisation (Nagel et al. 2019, arXiv 1906.04721), for the sizes of activations
instead of weights (as Xiao et al. 2022 do for matrices, arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from farrier_contracts.errors import InputError

from ...graph import run
from ...graph.edit import Graph, attribute, replace, standard
from ...model import Model
from .equalization import HOMOGENEOUS, Pair, find_pairs, own_constants

STEPS = (
    4  # in a factor of two: sizes are rounded up, so that one letter a channel says by what it was divided
)
MOST = 24  # steps below the largest channel; a smaller one may be larger on other data, and is not blown up further
MARK = "even"  # in the metadata of the layer before: the letters
# what may stand between that layer and a tensor that is divided as well
BETWEEN = (*HOMOGENEOUS, "QuantizeLinear", "DequantizeLinear", "Clip")

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


def uneven(model: Model) -> list[str]:
    """Return the tensors that depthwise convolutions read and that could be evened out."""
    return [pair.tensors[-1] for pair in _pairs(Graph(model))]


def sizes(model: Model, tensors: list[str], batches: Batches) -> dict[str, np.ndarray]:
    """Return the size [C] of each channel of some tensors over all batches, as a share of the largest one's."""
    session = run.session(run.up_to(model.proto, tensors), threads=run.THREADS)
    found: dict[str, np.ndarray] = {}
    for feeds in batches():
        try:
            values = session.run(tensors, feeds)
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        for name, value in zip(tensors, map(np.asarray, values), strict=True):
            largest = np.abs(value).max(axis=(0, *range(2, value.ndim)), initial=0.0).astype(np.float64)
            found[name] = np.maximum(found[name], largest) if name in found else largest
    return {name: _shares(value) for name, value in found.items()}


def even(model: Model, shares: Mapping[str, np.ndarray]) -> tuple[Model, dict[str, np.ndarray]]:
    """Return the same function with even channels, and what each changed tensor has been divided by, [1, C, 1, ..]."""
    graph = Graph(model)
    pairs = [pair for pair in _pairs(graph) if pair.tensors[-1] in shares]
    if not pairs:
        return model, {}
    own_constants(graph, pairs)
    divided: dict[str, np.ndarray] = {}
    for pair in pairs:
        letters = _letters(shares[pair.tensors[-1]])
        pair.first.metadata_props.add(key=MARK, value=letters)
        pair.divide(graph, _divisor(letters))
        rank = len(graph.initializers[pair.second.input[1]].dims)
        divisor = _divisor(letters).reshape([1, -1] + [1] * (rank - 2)).astype(np.float32)
        divided |= dict.fromkeys(pair.tensors, divisor)
    return graph.build(), divided


def divisor(graph: Graph, tensor: str) -> np.ndarray | None:
    """Return what `even` has divided the channels of a tensor by, [C]; None for what it left alone."""
    node = graph.producer.get(tensor)
    while node is not None:
        letters = next((field.value for field in node.metadata_props if field.key == MARK), None)
        if letters is not None:
            return _divisor(letters)
        node = graph.producer.get(node.input[0]) if standard(node, *BETWEEN) else None
    return None


def follow(twin: Model, divided: Mapping[str, np.ndarray]) -> Model:
    """Return a twin in which these tensors are what they are in the evened model, and all others as before."""
    if not divided:
        return twin
    graph = Graph(twin)
    for name in [n for n in divided if n in graph.producer]:
        before = graph.fresh(f"{name}_uneven")
        replace(graph.producer[name].output, name, before)
        graph.rename_reads(name, before)
        graph.add_node("Div", [before, graph.add_constant(f"{name}_divisor", divided[name])], name)
        graph.outputs.append(name)  # keeps it alive
        graph.index()
    return graph.build()


def _pairs(graph: Graph) -> list[Pair]:
    pairs = find_pairs(graph)
    return [p for p in pairs if standard(p.second, "Conv") and attribute(p.second, "group", 1) > 1]


def _shares(largest: np.ndarray) -> np.ndarray:
    most = float(largest.max(initial=0.0))
    return largest / most if np.isfinite(most) and most > 0 else np.ones_like(largest)


def _letters(shares: np.ndarray) -> str:
    steps = np.minimum(-STEPS * np.log2(np.maximum(shares, 2.0 ** (-MOST / STEPS))), MOST)
    return "".join(chr(ord("a") + step) for step in np.floor(steps).astype(int).tolist())


def _divisor(letters: str) -> np.ndarray:
    return 2.0 ** (-np.array([ord(letter) - ord("a") for letter in letters]) / STEPS)
