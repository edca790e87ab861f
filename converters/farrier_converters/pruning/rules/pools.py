"""Operators over the other axes: pooling, resizing, reductions, softmax."""

from __future__ import annotations

import numpy as np

from ..site import Site

SPATIAL = (
    "AveragePool",
    "GlobalAveragePool",
    "GlobalLpPool",
    "GlobalMaxPool",
    "LpPool",
    "MaxPool",
)
REDUCING = (
    *("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin"),
    *("ReduceProd", "ReduceSum", "ReduceSumSquare"),
)
SUMS = ("ReduceL1", "ReduceL2", "ReduceSum", "ReduceSumSquare")  # zeros add nothing to these


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
    if any(labels.shape[a] > 1 for a in axes):
        site.freeze(labels, f"{site.node.op_type} goes over them")
    site.set(labels)


def reducing(site: Site) -> None:
    """Follow a reduction; means over channels are of those that stay."""
    labels = site.labels(0)
    if labels is None:
        return
    axes = reduced_axes(site, labels.ndim)
    if axes is None:
        site.freeze(labels, "it reduces axes that are computed")
        return
    if any(labels.shape[a] > 1 for a in axes):
        if site.node.op_type in SUMS:
            site.sums()
        elif site.node.op_type == "ReduceMean":
            site.statistics()
        else:
            site.freeze(labels, f"{site.node.op_type} goes over them")
        if any(labels.shape[a] > 1 for a in range(labels.ndim) if a not in axes):
            for a in axes:
                site.units.tie_along(labels, a)
            site.freeze(labels, "its channels lie on two axes")
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
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "CumSum", "LpNormalization"), over_axis),
}
