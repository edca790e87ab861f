"""Operators over the other axes: pooling, resizing, reductions, softmax."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..site import Site

SPATIAL = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "GridSample",
    "LpPool",
    "MaxPool",
    "MaxRoiPool",
    "RoiAlign",
)
REDUCING = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
SUMS = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")  # zeros add nothing to these

NOTHING = {"ReduceMax": -np.inf, "ReduceMin": np.inf, "ReduceProd": 1.0}  # what counts for nothing in these


def spatial(site: Site) -> None:
    """Follow an operator that works within each channel."""
    labels = site.along(0, 1)
    for position in range(len(site.node.output)):
        if site.node.output[position]:
            site.set_along(1, labels, position)


def over_axis(site: Site) -> None:
    """Follow Softmax and its like: channels on its axis stay, those on others pass."""
    labels = site.labels(0)
    if labels is None:
        return
    old = site.graph.opset < 13
    axis = int(site.attribute("axis", 1 if old else -1)) % labels.ndim
    axes = range(axis, labels.ndim) if old and site.node.op_type != "CumSum" else (axis,)
    labels = apart(site, labels, axes)
    if any(labels.shape[a] > 1 for a in axes):
        site.freeze(labels, f"{site.node.op_type} goes over them")
    site.set(labels)


def picked(site: Site) -> None:
    """Follow ArgMax, ArgMin and TopK: places along other axes than that of the channels."""
    labels = site.labels(0)
    if labels is None:
        return
    top = site.node.op_type == "TopK"
    axis = int(site.attribute("axis", -1 if top else 0)) % labels.ndim
    labels = apart(site, labels, [axis])
    if labels.shape[axis] > 1:
        site.freeze(labels, f"{site.node.op_type} goes over them")
        return
    if not top and not site.attribute("keepdims", 1):
        labels = labels.reshape(labels.shape[:axis] + labels.shape[axis + 1 :])
    for position in range(len(site.node.output)):
        site.set(labels, position)


def whole(site: Site) -> None:
    """Follow an operator that needs all of some axes: Trilu, ReverseSequence, MeanVarianceNormalization."""
    labels = site.labels(0)
    if labels is None:
        return
    axes = {
        "Trilu": [labels.ndim - 2, labels.ndim - 1],
        "ReverseSequence": [0, 1],
        "MeanVarianceNormalization": [int(axis) % labels.ndim for axis in site.attribute("axes", [0, 2, 3])],
    }[site.node.op_type]
    labels = apart(site, labels, axes)
    if any(labels.shape[axis] > 1 for axis in axes):
        site.freeze(labels, f"{site.node.op_type} goes over them")
    site.set(labels)


def apart(site: Site, labels: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """Return labels that differ on these axes, or on the others, but not on both: heads go as wholes, then."""
    inside = [axis for axis in axes if labels.shape[axis] > 1]
    if not inside or all(size == 1 for axis, size in enumerate(labels.shape) if axis not in inside):
        return labels
    for axis in inside:
        site.units.tie_along(labels, axis)
    first = tuple(slice(0, 1) if axis in inside else slice(None) for axis in range(labels.ndim))
    return labels[first]


def reducing(site: Site) -> None:
    """Follow a reduction; means over channels are of those that stay."""
    labels = site.labels(0)
    if labels is None:
        return
    axes = reduced_axes(site, labels.ndim)
    if axes is None:
        site.freeze(labels, "it reduces axes that are computed")
        return
    labels = apart(site, labels, axes)
    if any(labels.shape[a] > 1 for a in axes):
        if site.node.op_type in SUMS:
            site.sums()
        elif site.node.op_type in NOTHING:
            site.fills(NOTHING[site.node.op_type])
        elif site.node.op_type == "ReduceMean":
            site.statistics()
        else:
            site.freeze(labels, f"{site.node.op_type} goes over them")
        return
    if site.attribute("keepdims", 1):
        site.set(labels)
    else:
        site.set(labels.reshape([size for a, size in enumerate(labels.shape) if a not in axes]))


def reduced_axes(site: Site, rank: int) -> list[int] | None:
    """Return the axes that a reduction goes over, None where they are computed."""
    given = site.attribute("axes")
    if given is None and site.has(1):
        given = site.constant(1)
        if given is None:
            return None
    if given is None or not np.size(given):
        return [] if site.attribute("noop_with_empty_axes", 0) else list(range(rank))
    return [int(a) % rank for a in np.ravel(given)]


RULES = {
    **dict.fromkeys(SPATIAL, spatial),
    **dict.fromkeys(REDUCING, reducing),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK"), picked),
    **dict.fromkeys(("Trilu", "ReverseSequence", "MeanVarianceNormalization"), whole),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization"), over_axis),
}
