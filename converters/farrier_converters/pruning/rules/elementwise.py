"""Operators that work on each element: what is joined falls together, and broadcast constants are cut along."""

from __future__ import annotations

import numpy as np

from ..labels import squeezed
from ..site import Site

UNARY = (
    *(
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
    ),
    *(
        "Cosh",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "IsInf",
    ),
    *(
        "IsNaN",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Shrink",
        "Sigmoid",
    ),
    *("Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu"),
)
JOINING = (
    *(
        "Add",
        "And",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
    ),
    *("LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "Pow", "PRelu", "Sub", "Sum", "Where", "Xor"),
)


def unary(site: Site) -> None:
    """Follow an operator of one tensor; further inputs are numbers."""
    for position in range(len(site.node.output)):
        if site.node.output[position]:
            site.set(site.labels(0), position)


def joining(site: Site) -> None:
    """Follow an operator that broadcasts its inputs against each other."""
    rank = len(site.made_shape().sizes)
    given = [p for p in range(len(site.node.input)) if site.has(p)]
    labelled = [(p, _padded(site, p, rank)) for p in given]
    found = [labels for _, labels in labelled if labels is not None]
    if not found:
        return
    if len({tuple(size > 1 for size in labels.shape) for labels in found}) > 1:
        found, labelled = _heads_first(site, labelled)
    for labels in found[1:]:
        site.units.tie(found[0], labels)
    if not found:
        return
    shape = np.broadcast_shapes(*(labels.shape for labels in found))
    joint = np.broadcast_to(max(found, key=lambda labels: labels.size), shape)
    for position, labels in labelled:
        _along(site, position, labels, joint, rank)
    site.set(joint)


Labelled = list[tuple[int, np.ndarray | None]]  # positions of inputs, and their labels


def _heads_first(site: Site, labelled: Labelled) -> tuple[list[np.ndarray], Labelled]:
    """Where inputs lose channels on different axes, let those of the first axis go, and the others stay.

    That is how rotary positions meet the heads of a query.
    """
    given = [(p, None if labels is None else squeezed(site.units.find(labels))) for p, labels in labelled]
    found = [labels for _, labels in given if labels is not None]
    axes = [axis for axis in range(found[0].ndim) if any(labels.shape[axis] > 1 for labels in found)]
    if len(axes) < 2:
        return found, given
    for labels in found:
        if labels.shape[axes[0]] == 1:
            site.freeze(labels, "channels that can go lie on another axis")
        for axis in axes[1:]:
            site.units.tie_along(labels, axis)
    tied = [(p, None if labels is None else squeezed(site.units.find(labels))) for p, labels in given]
    tied = [(p, None if labels is None or labels.size == 1 else labels) for p, labels in tied]
    return [labels for _, labels in tied if labels is not None], tied


def _padded(site: Site, position: int, rank: int) -> np.ndarray | None:
    labels = site.labels(position)
    return None if labels is None else labels.reshape((1,) * (rank - labels.ndim) + labels.shape)


def _along(site: Site, position: int, labels: np.ndarray | None, joint: np.ndarray, rank: int) -> None:
    """Cut a constant along the axes that the others lose channels on; a result without such channels holds them."""
    shape = site.shape(position)
    shape = (1,) * (rank - len(shape)) + tuple(shape)
    theirs = (1,) * rank if labels is None else labels.shape
    axes = [a for a in range(rank) if joint.shape[a] > 1 and shape[a] > 1 and theirs[a] == 1]
    if not axes:
        return
    if not site.stored(position):
        site.freeze(joint, "what they are joined with stays")
        return
    differ = [axis for axis in range(rank) if joint.shape[axis] > 1]
    if (
        len(differ) > 1
    ):  # one axis of a constant can be told at a time: heads stay free, their channels go together
        for axis in differ[1:]:
            site.units.tie_along(joint, axis)
        joint = squeezed(site.units.find(joint))
    axis = differ[0]
    if axis in axes and joint.shape[axis] > 1:
        site.slot(position, axis - (rank - len(site.shape(position))), joint.reshape(-1), makes=True)


RULES = {**dict.fromkeys(UNARY, unary), **dict.fromkeys(JOINING, joining)}
