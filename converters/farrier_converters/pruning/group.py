"""Groups: channels that are alike, and of which any may go; what `farrier prune --show-groups` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..graph.edit import Graph
from ..model import Model
from .labels import STAYS
from .separate import separate
from .site import Findings, Layer, Slot
from .walk import names_of, walk


@dataclass(frozen=True)
class Place:
    """Where a group's units lie in a constant: along `axis`, unit by unit at `positions` [units, elements each].

    `makes` says that these are the channels that the node makes (rows of weights, biases, scales of norms); otherwise
    the node reads them (columns of weights).
    """

    tensor: str
    axis: int
    positions: np.ndarray
    node: str
    op: str
    makes: bool


@dataclass(frozen=True)
class Group:
    """Units that occur in the same places of the same constants, so that they compete with each other."""

    name: str  # of the first layer that makes them
    units: np.ndarray  # numbers as `Units.find` gives them
    places: tuple[Place, ...]

    @property
    def size(self) -> int:
        """The number of units."""
        return len(self.units)

    @property
    def parameters(self) -> int:
        """How many elements of constants lie at a unit, in all places: an upper bound of what it takes along."""
        return sum(place.positions.shape[1] for place in self.places)


@dataclass(frozen=True)
class Frozen:
    """Channels that stay, and why."""

    node: str
    op: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Groups:
    """The dependency graph of a model: its groups, what stays, and what is needed to cut."""

    model: Model
    groups: tuple[Group, ...]
    frozen: tuple[Frozen, ...]
    found: Findings

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that multiply matrices, in graph order."""
        return tuple(self.found.layers)

    def named(self, name: str) -> Group:
        """Return a group by name; raises KeyError."""
        return next(group for group in self.groups if group.name == name)

    def multiply_adds(self, removed: np.ndarray | None = None) -> int:
        """Return the multiply-adds of one row when these units are gone (None: of the whole model)."""
        gone = np.array([], np.int64) if removed is None else np.unique(removed)
        total = 0
        for layer in self.layers:
            outputs = int((~np.isin(self.found.units.find(layer.outputs), gone)).sum())
            inputs = int((~np.isin(self.found.units.find(layer.inputs), gone)).sum())
            groups = layer.groups if layer.kind != "depthwise" else max(inputs, 1)
            total += layer.positions * layer.kernel * outputs * inputs // max(groups, 1)
        return total


def groups_of(model: Model, example: Mapping[str, np.ndarray] | None = None) -> Groups:
    """Return the groups of a float model; raises InputError. Constants should be folded (the pass `clean`).

    `example` is an input by name, for models that made-up ones do not suit.
    """
    model = separate(model)
    graph = Graph(model)
    found = walk(model, example)
    names = names_of(graph)
    ops = [node.op_type for node in graph.nodes]
    made: dict[tuple, list[int]] = {}
    for unit, signature in _signatures(found).items():
        made.setdefault(signature, []).append(unit)
    groups = []
    taken: Counter[str] = Counter()
    for signature, units in made.items():
        slots = [found.slots[number] for number, _count in signature]
        maker = next((slot for slot in slots if slot.makes), slots[0])
        name = names[maker.node]
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}#{taken[name]}"
        numbers = np.array(sorted(units), np.int64)
        places = tuple(_place(found, slot, numbers, names, ops) for slot in slots)
        groups.append((min(slot.node for slot in slots), Group(name, numbers, places)))
    ordered = tuple(group for _, group in sorted(groups, key=lambda pair: (pair[0], int(pair[1].units[0]))))
    return Groups(model, ordered, _frozen(found, names, ops), found)


def sources(groups: Groups, others: Groups) -> dict[int, set[int]]:
    """Return, for each unit of another graph that can go, the units that lie where it does in the constants of both.

    Among them is STAYS where what can go there has to stay here.
    """
    roots = {(s.tensor, s.axis): groups.found.units.find(s.labels) for s in groups.found.slots}
    known: dict[int, set[int]] = {}
    for slot in others.found.slots:
        mine = roots.get((slot.tensor, slot.axis))
        if mine is not None:
            theirs = others.found.units.find(slot.labels)
            pairs = np.unique(np.stack([theirs.ravel(), mine.ravel()], 1), axis=0)
            for unit, source in pairs.tolist():
                if unit != STAYS:
                    known.setdefault(unit, set()).add(source)
    return known


def _signatures(found: Findings) -> dict[int, tuple[tuple[int, int], ...]]:
    """For each unit that can go, the slots where it lies, with its number of elements there."""
    places: dict[int, list[tuple[int, int]]] = {}
    for number, slot in enumerate(found.slots):
        roots, counts = np.unique(found.units.find(slot.labels), return_counts=True)
        for root, count in zip(roots.tolist(), counts.tolist(), strict=True):
            if root != STAYS:
                places.setdefault(root, []).append((number, count))
    return {unit: tuple(where) for unit, where in places.items()}


def _place(found: Findings, slot: Slot, units: np.ndarray, names: list[str], ops: list[str]) -> Place:
    roots = found.units.find(slot.labels)
    order = np.argsort(roots, kind="stable")
    order = order[np.isin(roots[order], units)]
    return Place(
        slot.tensor,
        slot.axis,
        order.reshape(len(units), -1),
        names[slot.node],
        ops[slot.node],
        slot.makes,
    )


def _frozen(found: Findings, names: list[str], ops: list[str]) -> tuple[Frozen, ...]:
    seen: dict[tuple[int, str], int] = {}
    for node, labels, reason in found.frozen:
        seen[node, reason] = max(seen.get((node, reason), 0), labels.size)
    return tuple(Frozen(names[node], ops[node], count, why) for (node, why), count in seen.items())
