"""Take units out of a graph: constants are cut, and nodes that count channels follow."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import numpy_helper

from farrier_contracts.errors import InputError

from ..graph.edit import Graph
from ..model import Model
from .group import Groups
from .labels import squeezed
from .walk import kept_by, names_of


def cut(groups: Groups, removed: Iterable[int] | np.ndarray) -> Model:
    """Return the model without these units (numbers of `Group.units`).

    Raises InputError where nothing of a tensor would be left: a layer cannot lose all its channels.
    """
    found = groups.found
    gone = np.unique(np.asarray(list(removed), np.int64))
    if not len(gone):
        return groups.model
    kept = kept_by(found, gone)
    graph = Graph(groups.model)
    names = names_of(graph)
    for name, labels in found.labels.items():
        if not kept(labels).any():
            maker = next(names[i] for i, node in enumerate(graph.nodes) if name in node.output)
            raise InputError(f"nothing would be left of what {maker!r} makes; remove fewer of its channels")
    nodes = list(graph.nodes)
    for number, change in found.changes:
        change(graph, nodes[number], kept)
    sizes: dict[tuple[str, int], np.ndarray] = {}
    for slot in found.slots:
        sizes[slot.tensor, slot.axis] = kept(slot.labels)
    for (name, axis), stays in sizes.items():
        if not stays.all():
            value = numpy_helper.to_array(graph.initializers[name])
            value = np.ascontiguousarray(np.compress(stays, value, axis=axis))
            graph.initializers[name] = numpy_helper.from_array(value, name)
    graph.index()
    return graph.build()


def widths(groups: Groups, removed: np.ndarray) -> dict[str, int]:
    """Return how many channels each labelled tensor keeps along the axis that holds them."""
    kept = kept_by(groups.found, removed)
    return {
        name: int(kept(squeezed(groups.found.units.find(labels))).sum())
        for name, labels in groups.found.labels.items()
    }
