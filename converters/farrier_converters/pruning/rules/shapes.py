"""Operators that only rearrange: labels move as the elements do, and stored sizes follow."""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...graph.edit import Graph
from ..labels import spread, squeezed
from ..site import Kept, Site


def reshape(site: Site) -> None:
    """Follow Reshape; where its shape counts channels, it counts those that stay."""
    labels = site.source()
    if labels is None:
        return
    made = site.made_shape()
    found = moved(labels, site.shape(0), made.sizes)
    if found is None:
        site.freeze(labels, "it is reshaped together with other axes")
        return
    if site.graph.opset < 5:
        site.freeze(labels, "a Reshape of opset 4 or older is left whole")
        return
    target = np.array(site.values(1), np.int64)
    counted = np.array([size > 1 for size in found.shape], bool) & (
        target > 0
    )  # 0 and -1 adapt by themselves
    inferred = counted & _together(site, labels) if site.constant(1) is None else np.zeros_like(counted)
    if int(inferred.sum()) + int((target == -1).sum()) > 1:
        site.freeze(labels, "it is reshaped together with sizes that are computed")
        return
    site.set(found)

    def change(graph: Graph, node: onnx.NodeProto, kept: Kept) -> None:
        sizes = [kept_along(found, axis, kept) if counts else 0 for axis, counts in enumerate(counted)]
        fit_shape(graph, node, counted, np.where(inferred, -1, sizes))

    if counted.any():
        site.change(change)


def _together(site: Site, labels: np.ndarray) -> np.ndarray:
    """Say which axes [rank] of what is made hold channels together with a size that may be another in another run."""
    old, made = site.shape(0), site.made_shape()
    found = np.zeros(len(made.sizes), bool)
    for before, after in blocks(old, made.sizes):
        mixed = any(labels.shape[axis] == 1 < old[axis] for axis in before)
        for axis in after:
            found[axis] = mixed and made.free[axis]
    return found


def moved(labels: np.ndarray, old: tuple[int, ...], new: tuple[int, ...]) -> np.ndarray | None:
    """Return labels after a reshape: neighbouring axes are split and merged in blocks of equal size.

    Only axes of a block that holds labels are spread out. None where sizes do not come in blocks.
    """
    shape: list[int] = []
    for before, after in blocks(old, new):
        sizes = [new[a] for a in after]
        if all(labels.shape[a] == 1 for a in before):
            shape += [1] * len(after)
            continue
        target = [old[a] if a in before else labels.shape[a] for a in range(len(old))]
        if math.prod(old[a] for a in before) != math.prod(sizes):
            return None
        labels = np.broadcast_to(labels, target)
        shape += sizes
    return squeezed(np.ascontiguousarray(labels).reshape(shape))


def blocks(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Cut two shapes of equal size into the smallest blocks of axes whose products agree."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [], []
        left = right = 1
        if i < len(old):
            before.append(i)
            left, i = old[i], i + 1
        if j < len(new):
            after.append(j)
            right, j = new[j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
                before.append(i - 1)
            elif j < len(new):
                right, j = right * new[j], j + 1
                after.append(j - 1)
            else:
                break
        found.append((before, after))
    return found


def kept_along(labels: np.ndarray, axis: int, kept: Kept) -> int:
    """Return how many places along an axis stay."""
    return int(stays_along(labels, axis, kept).sum())


def stays_along(labels: np.ndarray, axis: int, kept: Kept) -> np.ndarray:
    """Return which places [size] along an axis stay: those where anything does."""
    rows = np.moveaxis(kept(labels), axis, 0).reshape(labels.shape[axis], -1)
    return np.asarray(rows.any(axis=1))


def flatten(site: Site) -> None:
    """Follow Flatten: [axes before `axis`, all others]."""
    labels = site.labels(0)
    if labels is not None:
        made = site.made_shape().sizes
        axis = int(site.attribute("axis", 1))
        if axis < 0:
            axis += labels.ndim
        if math.prod(labels.shape[:axis]) > 1:
            site.freeze(labels, "it is flattened together with other axes")
            return
        full = spread(labels, (*labels.shape[:axis], *site.shape(0)[axis:]))
        site.set(full.reshape(1, made[1]))


def transpose(site: Site) -> None:
    """Follow Transpose."""
    labels = site.source()
    if labels is not None:
        order = site.attribute("perm", list(range(labels.ndim))[::-1])
        site.set(labels.transpose([int(axis) for axis in order]))


def squeeze(site: Site) -> None:
    """Follow Squeeze and Unsqueeze: axes of one element come and go."""
    labels = site.source()
    if labels is None:
        return
    found = moved(labels, site.shape(0), site.made_shape().sizes)
    if found is None:
        site.freeze(labels, "its axes are computed")
    else:
        site.set(found)


def expand(site: Site) -> None:
    """Follow Expand; on axes that hold channels the wanted size becomes 1, which takes what is there."""
    labels = site.source()
    if labels is None:
        return
    rank = len(site.made_shape().sizes)
    padded = labels.reshape((1,) * (rank - labels.ndim) + labels.shape)
    wanted = site.shape(1)[0]  # how many of the last axes the wanted shape tells
    channels = np.array([size > 1 for size in padded.shape[rank - wanted :]], bool)

    def change(graph: Graph, node: onnx.NodeProto, _kept: Kept) -> None:
        fit_shape(graph, node, channels, np.ones(wanted, np.int64))

    if channels.any():
        site.change(change)
    site.set(padded)


def fit_shape(
    graph: Graph, node: onnx.NodeProto, counted: np.ndarray, sizes: np.ndarray, *, position: int = 1
) -> None:
    """Put `sizes` [rank] where `counted` [rank] says so in the shape that a node reads, be it constant or computed."""
    read, name = node.input[position], f"{node.output[0]}/shape"
    given = graph.constant(read)
    if given is not None:
        node.input[position] = graph.add_constant(name, np.where(counted, sizes, given).astype(np.int64))
        return
    others, theirs = graph.fresh(f"{name}/others"), graph.add_constant(f"{name}/uncounted", (~counted) * 1)
    graph.add_node("Mul", [read, theirs], others)
    made = graph.fresh(name)
    graph.add_node("Add", [others, graph.add_constant(f"{name}/counted", np.where(counted, sizes, 0))], made)
    node.input[position] = made


def tile(site: Site) -> None:
    """Follow Tile: repeated channels go with the first of them."""
    labels = site.source()
    if labels is None:
        return
    made, old = site.made_shape(), site.shape(0)
    channels = [axis for axis in range(labels.ndim) if labels.shape[axis] > 1]
    if site.constant(1) is None and any(made.free[axis] for axis in channels):
        site.freeze(labels, "it is repeated as often as is computed")
        return
    site.set(np.tile(labels, [made.sizes[a] // old[a] if a in channels else 1 for a in range(labels.ndim)]))


def depth_to_space(site: Site) -> None:
    """Follow DepthToSpace: the channels of one output channel fall together."""
    labels = site.along(0, 1)
    if labels is None:
        return
    taps = int(site.attribute("blocksize")) ** 2
    crd = site.attribute("mode", b"DCR") == b"CRD"
    table = labels.reshape(-1, taps) if crd else labels.reshape(taps, -1).T
    site.units.tie_along(table, 1)
    site.set_along(1, table[:, 0])


def space_to_depth(site: Site) -> None:
    """Follow SpaceToDepth: channels are repeated for each place of a block."""
    labels = site.along(0, 1)
    if labels is not None:
        site.set_along(1, np.tile(labels, int(site.attribute("blocksize")) ** 2))


RULES = {
    "Reshape": reshape,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": squeeze,
    "Expand": expand,
    "Tile": tile,
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
