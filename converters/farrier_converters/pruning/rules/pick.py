"""Picking elements: embeddings, constant indices on the channels' axis, and what only asks for shapes."""

from __future__ import annotations

import numpy as np
import onnx

from ...graph.edit import Graph
from ..site import Kept, Site
from .shapes import stays_along


def gather(site: Site) -> None:
    """Follow Gather: rows of a constant table are embeddings; constant indices pick labels."""
    if site.stored(0) and site.constant(1) is None:
        _embedding(site)
        return
    labels = site.labels(0)
    if labels is None:
        return
    axis = int(site.attribute("axis", 0)) % labels.ndim
    indices = site.constant(1)
    rank = len(site.shape(1))
    if labels.shape[axis] == 1:
        shape = (*labels.shape[:axis], *(1,) * rank, *labels.shape[axis + 1 :])
        site.set(labels.reshape(shape))
        return
    if indices is None:
        site.freeze(labels, "which of them are picked is computed")
        return
    chosen = np.asarray(indices, np.int64)
    site.set(np.take(labels, chosen, axis=axis))
    size = labels.shape[axis]

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        stays = stays_along(labels, axis, kept)
        places = np.cumsum(stays) - 1
        positive = chosen % size
        left = positive if not positive.ndim else positive[stays[positive]]
        made = np.asarray(places[left], chosen.dtype)
        node.input[1] = graph.add_constant(f"{node.output[0]}/indices", made)

    if rank == 0:
        others = [a for a in range(labels.ndim) if a != axis and labels.shape[a] > 1]
        site.units.tie_along(labels, axis) if others else site.freeze(labels, "one of them is picked")
    elif rank > 1:
        site.freeze(labels, "they are picked into a table")
    else:
        site.change(change)


def _embedding(site: Site) -> None:
    table = site.shape(0)
    axis = int(site.attribute("axis", 0)) % len(table)
    if axis != 0 or len(table) != 2:
        return
    made = site.new(table[1])
    site.slot(0, 1, made, makes=True)
    site.set_along(-1, made)


def nothing(_site: Site) -> None:
    """Follow an operator whose result holds no channels: a shape, a mask of one input."""


RULES = {
    "Gather": gather,
    "Shape": nothing,
    "Size": nothing,
}
