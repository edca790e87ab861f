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
    chosen = np.asarray(indices, np.int64) % labels.shape[axis]
    picked = np.take(labels, chosen, axis=axis)
    if rank == 0:
        _one(site, labels, picked, axis)
    site.set(picked)

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        places = left(labels, axis, chosen, kept)
        node.input[1] = graph.add_constant(f"{node.output[0]}/indices", places.astype(indices.dtype))

    site.change(change)


def _one(site: Site, labels: np.ndarray, picked: np.ndarray, axis: int) -> None:
    """One place of the axis is picked: it has to stay, by what it holds on other axes where it holds anything."""
    if picked.size > 1:
        site.units.tie_along(labels, axis)
    else:
        site.freeze(picked, "it is picked alone")


def left(labels: np.ndarray, axis: int, chosen: np.ndarray, kept: Kept) -> np.ndarray:
    """Return those of the places `chosen` along an axis that stay, counted among what stays of all places."""
    stays = stays_along(labels, axis, kept)
    places = np.cumsum(stays) - 1
    for along in range(chosen.ndim):
        rest = tuple(a for a in range(chosen.ndim) if a != along)
        chosen = np.compress(stays[chosen].any(axis=rest), chosen, axis=along)
    return np.asarray(places[chosen])


def pick_behind(graph: Graph, node: onnx.NodeProto, axis: int, places: np.ndarray) -> None:
    """Let a Gather pick these places along an axis of what a node makes."""
    name = node.output[0]
    node.output[0] = graph.fresh(f"{name}/all")
    indices = graph.add_constant(f"{name}/places", places)
    graph.add_node("Gather", [node.output[0], indices], name, axis=axis)


def _embedding(site: Site) -> None:
    """A constant table [rows, width] (its rows on any axis): the width is made anew."""
    shape, value = site.shape(0), site.constant(0)
    axis = int(site.attribute("axis", 0)) % len(shape)
    wide = [a for a, size in enumerate(shape) if a != axis and size > 1]
    if not wide or value is None or value.dtype.kind != "f":
        return
    made = site.new(shape[wide[-1]])
    site.slot(0, wide[-1], made, makes=True)
    site.set_along(wide[-1] if wide[-1] < axis else wide[-1] + len(site.shape(1)) - 1, made)


def nothing(site: Site) -> None:
    """Follow an operator whose result holds no channels; who reads how many there are is told in `counts`."""
    site.labels(0)


RULES = {
    "Gather": gather,
    "Shape": nothing,
}
