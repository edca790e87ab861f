"""Importance from what units do on calibration rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ...graph.edit import Graph
from ..group import Groups
from .evidence import Evidence, Reading, Scores
from .observe import Tap, numbering, per_unit, split, taps, values_of
from .weights import Weights

Function = Callable[[np.ndarray], np.ndarray]


def means(
    groups: Groups, found: Sequence[Tap], evidence: Evidence, functions: Sequence[Function]
) -> list[np.ndarray]:
    """Return for each function the means of its values, [taps, units]; NaN where a tap does not hold a unit."""
    count = len(numbering(groups))
    sums = np.zeros((len(functions), len(found), count))
    sizes = np.zeros((len(found), count))
    for values in values_of(groups, [tap.tensor for tap in found], evidence.rows):
        for number, tap in enumerate(found):
            value = values[tap.tensor]
            for which, function in enumerate(functions):
                sums[which, number] += per_unit(tap, function(value), count)
            sizes[number] += per_unit(tap, np.ones_like(value, np.float32), count)
    with np.errstate(invalid="ignore"):
        return [total / sizes for total in sums]


def _scored(groups: Groups, evidence: Evidence, reading: Reading, of: Function, *, across: bool) -> Scores:
    found = taps(groups)
    table = means(groups, found, evidence, [of])[0]
    scores = {}
    for name, rows in split(groups, table.T).items():
        columns = [column for column in rows.T if not np.isnan(column).any()]
        scores[name] = reading.together(groups.named(name), columns, across=across)
    return scores


def activation(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Mean magnitude of a unit's activations (Molchanov et al., arXiv 1611.06440, section 2.2)."""
    return _scored(groups, evidence, reading, np.abs, across=False)


def nonzero(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """Share of a unit's activations that are not zero: one minus APoZ (Hu et al., arXiv 1607.03250)."""
    return _scored(groups, evidence, reading, lambda value: (value != 0).astype(np.float32), across=True)


def energy(groups: Groups, evidence: Evidence, reading: Reading) -> Scores:
    """What a unit brings to the layers that read it: variance of its activations times its squared weights there.

    Each number is a share of what the layer gets from all units. Constant activations bring nothing that a bias could
    not (see `pruning.rebuild`). The first-order form of He et al., "Channel Pruning", arXiv 1707.06168.
    """
    found = taps(groups)
    mean, square = means(groups, found, evidence, [lambda value: value, np.square])
    variance = dict(zip((tap.tensor for tap in found), np.maximum(square - mean**2, 0), strict=True))
    reads = {node.name or node.output[0]: list(node.input) for node in Graph(groups.model).nodes}
    weights, places = Weights(groups), numbering(groups)
    brought: dict[str, list[tuple[str, np.ndarray]]] = {}
    totals: Counter[str] = Counter()
    for group in groups.groups:
        units = [places[int(unit)] for unit in group.units]
        for place in group.places:
            source = next((name for name in reads[place.node] if name in variance), None)
            if place.makes or source is None or not weights.multiplies(place):
                continue
            spread = np.nan_to_num(variance[source][units])
            value = spread * (weights.vectors(place) ** 2).sum(axis=1)
            brought.setdefault(group.name, []).append((place.node, value))
            totals[place.node] += float(value.sum())  # type: ignore[assignment]
    return {
        group.name: reading.together(
            group, [value / (totals[node] or 1.0) for node, value in brought.get(group.name, [])], across=True
        )
        for group in groups.groups
    }
