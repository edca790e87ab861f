"""How a float network takes some rows: against the statistics that it was trained with, or by its answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..graph import run
from ..graph.edit import Graph, attribute, standard
from ..model import Model

NORMS = 6  # batch norms that are looked at, the first ones: they are nearest to the input
OP = "BatchNormalization"


@dataclass(frozen=True)
class Reaction:
    """How a network takes rows. `misfit`: mean divergence from the batch norms' stored statistics, None without any.

    `classes`: the predicted class per row, None where the first output is no [N, C >= 3]; `information`: between rows
    and predictions, as a share of the most possible (0: the same answer to everything, 1: sure and different answers);
    `confidence` the logarithm of each row's largest share; `seconds` the class that comes second, per row.
    """

    misfit: float | None
    classes: np.ndarray | None
    information: float | None
    confidence: np.ndarray | None = None
    seconds: np.ndarray | None = None
    kinds: int = 0  # classes that there are


class Listener:
    """Runs one network on variants of the same rows."""

    def __init__(self, model: Model) -> None:
        self.model = model
        graph = Graph(model)
        norms = [n for n in graph.nodes if standard(n, OP) and not attribute(n, "training_mode", 0)]
        found = [(n.input[0], graph.constant(n.input[3]), graph.constant(n.input[4])) for n in norms]
        self.norms = [(name, mean, var) for name, mean, var in found if mean is not None and var is not None][
            :NORMS
        ]
        inputs = {spec.name for spec in model.inputs}
        self.names = [model.outputs[0].name, *(name for name, _, _ in self.norms if name not in inputs)]
        self.session = run.session(run.up_to(model.proto, self.names))

    def react(self, batches: list[dict[str, np.ndarray]]) -> Reaction:
        """Return how the network takes these batches; raises what the engine raises."""
        names = list(dict.fromkeys(self.names))
        sums: dict[str, list[np.ndarray | float]] = {}
        outputs = []
        for feeds in batches:
            values = dict(zip(names, self.session.run(names, feeds), strict=True))
            outputs.append(np.asarray(values[names[0]]))
            for name, _, _ in self.norms:
                _add(sums, name, np.asarray(values.get(name, feeds.get(name))).astype(np.float64))
        found = [_divergence(sums[name], mean, var) for name, mean, var in self.norms]
        return Reaction(float(np.mean(found)) if found else None, *_answers(outputs))


def _add(sums: dict[str, list], name: str, value: np.ndarray) -> None:
    axes = (0, *range(2, value.ndim))
    count = value.size / value.shape[1]
    new = [value.sum(axis=axes), np.square(value).sum(axis=axes), count]
    sums[name] = [x + y for x, y in zip(sums[name], new, strict=True)] if name in sums else new


def _divergence(sums: list, mean: np.ndarray, variance: np.ndarray) -> float:
    """Return the mean over channels of log(1 + KL) between observed and stored normal distributions."""
    observed = sums[0] / sums[2]
    spread = np.maximum(sums[1] / sums[2] - np.square(observed), 0)
    stored = np.maximum(variance.astype(np.float64), 1e-12)
    ratio = np.maximum(spread / stored, 1e-9)
    kl = 0.5 * (ratio - 1 - np.log(ratio) + np.square(observed - mean) / stored)
    return float(np.log1p(kl).mean())


def _answers(outputs: list[np.ndarray]) -> tuple:
    """Return the fields of a reaction that the answers make, from `classes` on."""
    if not outputs or outputs[0].ndim != 2 or outputs[0].shape[1] < 3 or outputs[0].dtype.kind != "f":
        return None, None
    scores = np.concatenate(outputs).astype(np.float64)
    seconds, classes = np.argsort(scores, axis=1, kind="stable")[:, -2:].T
    if (scores >= 0).all() and np.allclose(scores.sum(axis=1), 1, atol=1e-3):
        scores = np.log(np.maximum(scores, 1e-12))
    scores = scores - scores.mean(axis=1, keepdims=True)
    grown = np.exp(
        4 * scores / max(float(scores.std()), 1e-12)
    )  # sizes of logits say nothing: only their order
    shares = grown / grown.sum(axis=1, keepdims=True)
    each = -(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=1).mean()
    mean = shares.mean(axis=0)
    together = -(mean * np.log(np.maximum(mean, 1e-12))).sum()
    information = float((together - each) / np.log(scores.shape[1]))
    return classes, information, np.log(np.maximum(shares.max(axis=1), 1e-12)), seconds, scores.shape[1]
