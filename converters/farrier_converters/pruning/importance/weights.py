"""Importance from the weights alone: norms, distance to the others, and the scales of batch norms."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from farrier_contracts.errors import InputError

from ...graph.edit import Graph, attribute
from ..group import Group, Groups, Place
from .evidence import Evidence, Reading, Scores

MULTIPLY = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "LSTM": (1, 2),
    "GRU": (1, 2),
    "RNN": (1, 2),
}  # the inputs of an operator that hold weights
NORMS = (
    "BatchNormalization",
    "LayerNormalization",
    "InstanceNormalization",
    "GroupNormalization",
    "RMSNormalization",
)
SCALE = 1  # the input of a norm that holds its scales


class Weights:
    """The constants of a model as its layers apply them: rows of convolutions times the batch norm that follows."""

    def __init__(self, groups: Groups) -> None:
        graph = Graph(groups.model)
        self.groups = groups
        self._nodes = {node.name or node.output[0]: node for node in graph.nodes}
        self._values = {n: numpy_helper.to_array(t) for n, t in graph.initializers.items()}
        self._factors: dict[str, tuple[int, np.ndarray]] = {}
        for node in graph.nodes:
            if node.op_type == "BatchNormalization":
                maker = graph.producer.get(node.input[0])
                alone = len(graph.readers.get(node.input[0], [])) == 1
                scale, variance = (self._values.get(node.input[i]) for i in (SCALE, 4))
                if (
                    maker is not None
                    and maker.op_type == "Conv"
                    and alone
                    and scale is not None
                    and variance is not None
                ):
                    epsilon = attribute(node, "epsilon", 1e-5)
                    self._factors[maker.input[1]] = 0, scale / np.sqrt(np.abs(variance) + epsilon)

    def multiplies(self, place: Place) -> bool:
        """Say whether a place lies in weights that multiply, rather than in biases and norms."""
        node = self._nodes[place.node]
        return place.tensor in {node.input[i] for i in MULTIPLY.get(node.op_type, ()) if i < len(node.input)}

    def scales(self, place: Place) -> bool:
        """Say whether a place lies in the scales of a norm."""
        node = self._nodes[place.node]
        return node.op_type in NORMS and len(node.input) > SCALE and place.tensor == node.input[SCALE]

    def value(self, tensor: str) -> np.ndarray:
        """Return a constant, with the scale of a batch norm that follows."""
        value = self._values[tensor].astype(np.float64)
        axis, factor = self._factors.get(tensor, (0, None))
        if factor is None or value.shape[axis] != len(factor):
            return value
        return value * factor.reshape([-1 if a == axis else 1 for a in range(value.ndim)])

    def stored(self, tensor: str) -> np.ndarray:
        """Return a constant as it is."""
        return self._values[tensor]

    def vectors(self, place: Place) -> np.ndarray:
        """Return what belongs to each unit in a place: [units, elements]."""
        rows = np.moveaxis(self.value(place.tensor), place.axis, 0)
        rows = rows.reshape(len(rows), -1)
        return rows[place.positions].reshape(len(place.positions), -1)


def _norm(groups: Groups, reading: Reading, power: int) -> Scores:
    weights = Weights(groups)
    scores = {}
    for group in groups.groups:
        places = _multiplying(weights, group)
        numbers = [(np.abs(weights.vectors(place)) ** power).sum(axis=1) ** (1 / power) for place in places]
        scores[group.name] = reading.together(group, numbers)
    return scores


def l1(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Sum of magnitudes over all layers that a unit occurs in (Li et al., arXiv 1608.08710; group form of DepGraph)."""
    return _norm(groups, reading, 1)


def l2(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Roots of the sums of squares, over all layers that a unit occurs in (Fang et al., arXiv 2301.12900)."""
    return _norm(groups, reading, 2)


def median(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Distance of a unit's weights to those of the others: near the median, others can stand for it.

    Source: He et al., "Filter Pruning via Geometric Median", arXiv 1811.00250.
    """
    weights = Weights(groups)
    scores = {}
    for group in groups.groups:
        made = [place for place in _multiplying(weights, group) if place.makes]
        numbers = []
        for place in made or _multiplying(weights, group):
            rows = weights.vectors(place)
            squares = (rows**2).sum(axis=1)
            apart = squares[:, None] + squares[None] - 2 * rows @ rows.T
            numbers.append(np.sqrt(np.maximum(apart, 0)).sum(axis=1))
        scores[group.name] = reading.together(group, numbers)
    return scores


def scale(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Magnitude of the scale that a norm gives a unit (Liu et al., "Network Slimming", arXiv 1708.06519).

    Units without a norm are not judged: NaN. Raises InputError where no unit has one.
    """
    weights = Weights(groups)
    scores = {}
    for group in groups.groups:
        numbers = [
            np.abs(weights.stored(place.tensor))[place.positions].sum(axis=1)
            for place in group.places
            if weights.scales(place)
        ]
        scores[group.name] = reading.together(group, numbers)
    if all(np.isnan(values).all() for values in scores.values()):
        raise InputError(
            "no channel that can go has a norm with a scale (batch norms may have been folded into the weights); "
            "choose another importance, like l2"
        )
    return scores


def random(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Draw numbers: what any other criterion has to beat."""
    rng = np.random.default_rng(evidence.seed)
    return {group.name: rng.uniform(0.0, 1.0, group.size) for group in groups.groups}


def _multiplying(weights: Weights, group: Group) -> list[Place]:
    return [place for place in group.places if weights.multiplies(place)]
