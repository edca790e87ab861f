"""Sizes that are read from tensors: where one counts channels, only what is made to fit may use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..site import Site

Counts = tuple[
    np.ndarray | None, ...
]  # for each size in a list of sizes, the labels of the channels that it counts
COPYING = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")
ARITHMETIC = ("Add", "Div", "Mul", "Sub")
FITTED = {"Expand": 1, "Reshape": 1, "Resize": 3}  # where these read a shape, which their rules make fit
REASON = "how many they are is computed with"


def follow(site: Site) -> None:
    """Follow sizes through one node: channels stay whose number is used for more than a shape that is made to fit."""
    op = site.node.op_type
    if op == "Shape":
        _keep(site, _sizes(site))
        return
    read = {p: site.found.counts[n] for p, n in enumerate(site.node.input) if n in site.found.counts}
    for position, counts in read.items():
        if position == FITTED.get(op):
            _check(site, counts)
        elif not (op in ("Concat", *ARITHMETIC) or position == 0) or not _keep(site, _passed(site, read)):
            _freeze(site, counts)


def _sizes(site: Site) -> Counts:
    labels = site.labels(0)
    if labels is None:
        return ()
    along = [
        np.moveaxis(labels, axis, -1).reshape(-1, size)[0] if size > 1 else None
        for axis, size in enumerate(labels.shape)
    ]
    return tuple(along[slice(int(site.attribute("start", 0)), site.attribute("end"))])


def _keep(site: Site, counts: Counts | None) -> bool:
    """Note what the node's result counts; False where that cannot be said."""
    if counts is None:
        return False
    if any(labels is not None for labels in counts):
        site.found.counts[site.node.output[0]] = counts
        if site.graph.kept(site.node.output[0]):
            _freeze(site, counts)
    return True


def _passed(site: Site, read: dict[int, Counts]) -> Counts | None:
    """Return what is counted behind an operator that only moves sizes; None behind any other."""
    op = site.node.op_type
    if op == "Concat":
        parts: list[Counts] = [
            read.get(p, (None,) * int(np.prod(site.shape(p)))) for p in range(len(site.node.input))
        ]
        return tuple(labels for part in parts for labels in part)
    if op in COPYING:
        return read[0]
    if op in ARITHMETIC:
        alone = next(iter(read.values()))
        return alone if len(read) == 1 and len(alone) == int(np.prod(site.made_shape().sizes)) else None
    chosen = [site.constant(p) for p in range(1, len(site.node.input)) if site.has(p)]
    if any(value is None for value in chosen):
        return None
    numbers = [np.ravel(np.asarray(value)).tolist() for value in chosen]
    if op == "Gather":
        return tuple(read[0][int(place)] for place in numbers[0])
    if op == "Slice" and len(numbers) >= 2:
        step = numbers[3][0] if len(numbers) > 3 else 1
        return read[0][numbers[0][0] : numbers[1][0] : step]
    return None


def _check(site: Site, counts: Counts) -> None:
    """Let channels stay whose number is the size of an axis that the node's result does not lose channels on."""
    made = site.found.labels.get(site.node.output[0])
    rank = len(site.made_shape().sizes)
    for place, labels in enumerate(counts):
        axis = place + rank - len(counts)
        if labels is not None and (made is None or made.shape[axis] == 1):
            site.freeze(labels, REASON)


def _freeze(site: Site, counts: Sequence[np.ndarray | None]) -> None:
    for labels in counts:
        if labels is not None:
            site.freeze(labels, REASON)
