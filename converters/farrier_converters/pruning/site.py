"""What a rule sees of a node, and what it says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from ..graph.edit import Graph, attribute
from .labels import STAYS, Units, spread, squeezed
from .shapes import Shape

LAST = "nothing would be left"
Kept = Callable[[np.ndarray], np.ndarray]  # labels -> which of them stay, as booleans
Change = Callable[
    [Graph, onnx.NodeProto, Kept], None
]  # makes a node's attributes and constants fit what stays


@dataclass(frozen=True)
class Slot:
    """A constant that a node reads: cutting takes away along `axis` what `labels` [size] say."""

    tensor: str
    axis: int
    labels: np.ndarray
    node: int
    makes: bool  # these are the channels that the node makes, rather than reads


@dataclass(frozen=True)
class Layer:
    """A node that multiplies matrices: what its time depends on.

    `outputs` and `inputs` are labels of its channels (zeros where they stay); `positions` is how often the kernel is
    applied in one run of batch 1, `kernel` its number of taps. With `groups` labels, only channels of one group meet.
    """

    node: int
    name: str
    kind: str  # "conv", "pointwise", "depthwise", "dense", "recurrent"
    outputs: np.ndarray
    inputs: np.ndarray
    positions: int
    kernel: int = 1
    groups: int = 1


@dataclass
class Findings:
    """What the walk over a graph found. Nodes are numbers: positions in the graph's own order."""

    units: Units = field(default_factory=Units)
    labels: dict[str, np.ndarray] = field(default_factory=dict)  # of tensors: rank as theirs, 1 where none
    slots: list[Slot] = field(default_factory=list)
    layers: list[Layer] = field(default_factory=list)
    changes: list[tuple[int, Change]] = field(default_factory=list)
    sums: list[tuple[int, int, np.ndarray]] = field(default_factory=list)  # node, input, labels summed over
    fills: list[tuple[int, int, np.ndarray, float]] = field(
        default_factory=list
    )  # the same, and what counts nothing
    statistics: list[tuple[int, np.ndarray]] = field(default_factory=list)  # node, labels of its first input
    zeros: list[Slot] = field(default_factory=list)  # constants that a masked twin has zeros in
    frozen: list[tuple[int, np.ndarray, str]] = field(default_factory=list)  # node, labels, why


class Site:
    """A node under a rule: reads labels of its inputs, sets those of its outputs, and says what depends on them.

    Labels of a tensor have its rank, and one element along each axis that nothing can be removed from.
    """

    def __init__(
        self, found: Findings, graph: Graph, node: onnx.NodeProto, number: int, shapes: dict[str, Shape]
    ) -> None:
        self.found, self.graph, self.node, self.number = found, graph, node, number
        self.units = found.units
        self._shapes = shapes
        self._followed: set[int] = set()  # the inputs that the rule has asked about

    @property
    def name(self) -> str:
        """The node's name, or that of its first output."""
        return self.node.name or self.node.output[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value."""
        return attribute(self.node, name, default)

    def has(self, position: int) -> bool:
        """Say whether an optional input is given."""
        return position < len(self.node.input) and bool(self.node.input[position])

    def input(self, position: int) -> str:
        """Return an input's name, "" where it is not given."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def constant(self, position: int) -> np.ndarray | None:
        """Return a constant input's value."""
        return self.graph.constant(self.input(position))

    def stored(self, position: int) -> bool:
        """Say whether an input is an initializer, which can be cut."""
        return self.input(position) in self.graph.initializers

    def shape(self, position: int) -> tuple[int, ...]:
        """Return an input's shape in the run that was observed."""
        return self._shapes[self.input(position)].sizes

    def values(self, position: int) -> tuple[int, ...]:
        """Return the integers of an input that is a shape, as they were in the run that was observed."""
        constant = self.constant(position)
        return self._shapes[self.input(position)].values if constant is None else tuple(constant.tolist())

    def made_shape(self, position: int = 0) -> Shape:
        """Return an output's shape, and which of its sizes are free."""
        return self._shapes[self.node.output[position]]

    def labels(self, position: int) -> np.ndarray | None:
        """Return the labels of an input as they stand by now, None where it has none that can go."""
        self._followed.add(position)
        labels = self.found.labels.get(self.input(position))
        if labels is None:
            return None
        found = squeezed(self.units.find(labels))
        return None if found.size == 1 else found

    def source(self, position: int = 0) -> np.ndarray | None:
        """Return the labels of an input; a constant that is data, such as a class token, gets units of its own.

        They lie on its only axis, on axis 1 where it looks like a map, on the last one otherwise: what it is joined
        with decides whether they can go.
        """
        labels, value = self.labels(position), self.constant(position)
        if labels is not None or value is None or value.dtype.kind != "f" or value.size < 2:
            return labels
        wide = [axis for axis, size in enumerate(value.shape) if size > 1]
        axis = 1 if value.ndim >= 4 and 1 in wide else wide[-1]
        made = self.new(value.shape[axis])
        self.slot(position, axis, made, makes=True)
        return made.reshape([-1 if a == axis else 1 for a in range(value.ndim)])

    def along(self, position: int, axis: int) -> np.ndarray | None:
        """Return the labels [size] along one axis of an input: what differs along others too falls together there."""
        labels = self.labels(position)
        if labels is None:
            return None
        axis %= labels.ndim
        others = [a for a in range(labels.ndim) if a != axis and labels.shape[a] > 1]
        if labels.shape[axis] == 1:
            if others:
                self.freeze(labels, "its channels lie on another axis than those that are read")
            return None
        for other in others:
            self.units.tie_along(labels, other)
        return np.moveaxis(labels, axis, -1).reshape(-1, labels.shape[axis])[0]

    def set(self, labels: np.ndarray | None, position: int = 0) -> None:
        """Give an output its labels (None: it has none); the only channel of a tensor stays."""
        if labels is None or position >= len(self.node.output) or not self.node.output[position]:
            return
        found = squeezed(labels)
        if found.size > 1:
            self.found.labels[self.node.output[position]] = found
        elif self.units.find(found).any():
            self.freeze(found, LAST)

    def set_along(self, axis: int, labels: np.ndarray | None, position: int = 0) -> None:
        """Give an output labels [size] along one axis."""
        if labels is not None:
            rank = len(self.made_shape(position).sizes)
            self.set(labels.reshape([-1 if a == axis % rank else 1 for a in range(rank)]), position)

    def new(self, count: int) -> np.ndarray:
        """Return labels of new units."""
        return self.units.new(count)

    def staying(self, count: int) -> np.ndarray:
        """Return labels [count] of what stays."""
        return np.full(count, STAYS, np.int64)

    def spread(self, position: int) -> np.ndarray:
        """Return the labels of an input in its full shape; zeros where it has none."""
        labels, shape = self.labels(position), self.shape(position)
        return spread(np.array(STAYS) if labels is None else labels, shape)

    def slot(self, position: int, axis: int, labels: np.ndarray | None, *, makes: bool) -> None:
        """Say that a constant input is cut along an axis; one that is no initializer keeps the units."""
        if labels is None or not self.has(position):
            return
        if not self.stored(position):
            self.freeze(labels, "its weights are computed")
            return
        axis %= len(self.shape(position))
        self.found.slots.append(Slot(self.input(position), axis, labels, self.number, makes))

    def change(self, change: Change) -> None:
        """Say what has to be done to the node when units go."""
        self.found.changes.append((self.number, change))

    def sums(self, position: int = 0) -> None:
        """Say that the node sums over the channels of an input: a masked twin has zeros there."""
        labels = self.labels(position)
        if labels is not None:
            self.found.sums.append((self.number, position, labels))

    def fills(self, value: float, position: int = 0) -> None:
        """Say that the node goes over the channels of an input, and which value counts for nothing there."""
        labels = self.labels(position)
        if labels is not None:
            self.found.fills.append((self.number, position, labels, value))

    def statistics(self) -> None:
        """Say that the node takes means over the channels of its first input: of those that stay."""
        labels = self.labels(0)
        if labels is not None:
            self.found.statistics.append((self.number, labels))

    def freeze(self, labels: np.ndarray | None, reason: str) -> None:
        """Let units stay, with the reason."""
        if labels is not None:
            self.found.frozen.append((self.number, labels, reason))
            self.units.freeze(labels)

    def keep_others(self) -> None:
        """Let the channels of inputs stay that the rule has not asked about: of computed weights, of sizes."""
        for position in range(len(self.node.input)):
            if position not in self._followed:
                self.freeze(
                    self.labels(position), f"{self.node.op_type} reads them otherwise than as its data"
                )

    def refuse(self, reason: str) -> None:
        """Let everything that the node reads stay."""
        for position in range(len(self.node.input)):
            self.freeze(self.labels(position), reason)
