"""What a model costs with some of its units gone: multiply-adds, parameters, and predicted time, node by node."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...graph.edit import Graph
from ...graph.types import infer
from ..blocks import Block
from ..group import Groups
from ..importance.observe import numbering
from ..staircase import Layer, Staircase, work_of
from ..staircase.layers import RECURRENT
from ..staircase.table import NS_PER_MS, OTHER

FLOATING = (1, 10, 11, 16)  # element types: float32, float16, float64, bfloat16


@dataclass(frozen=True)
class Totals:
    """Of one run at batch 1: multiply-adds, parameters (elements of cut constants), milliseconds as predicted."""

    multiply_adds: int
    parameters: int
    ms: float


@dataclass(frozen=True)
class Axis:
    """Channels along one axis: `units` are places in the numbering that can go, `counts` how often each occurs."""

    size: int
    units: np.ndarray
    counts: np.ndarray

    def kept(self, gone: np.ndarray) -> int:
        """Return how many channels stay; `gone` [all units] is true for what goes."""
        return self.size - int(self.counts[gone[self.units]].sum())


@dataclass(frozen=True)
class Node:
    """A node that costs something, and the channels that its cost hangs on."""

    index: int  # in the graph's order
    name: str
    layer: Layer
    outputs: Axis
    inputs: Axis
    weighted: bool  # it multiplies with weights, so that its multiply-adds count

    def at(self, outputs: int, inputs: int) -> Layer:
        """Return the layer with that many channels."""
        layer = self.layer
        whole_outputs, whole_inputs = max(self.outputs.size, 1), max(self.inputs.size, 1)
        wide = layer.outputs * outputs // whole_outputs
        deep = layer.inputs * inputs // whole_inputs
        if layer.kind == RECURRENT:  # its "inputs" are those of the layer and its own state
            deep = max(layer.inputs - layer.outputs, 0) * inputs // whole_inputs + wide
        groups = layer.groups
        if groups > 1 and groups == layer.inputs:
            groups = deep
        return Layer(layer.kind, wide, deep, layer.positions, layer.kernel, groups)


class Costs:
    """The costs of a model; all methods take `gone` [units], true for units that go (see `observe.numbering`)."""

    def __init__(self, groups: Groups, staircase: Staircase, blocks: Iterable[Block] = ()) -> None:
        self.groups = groups
        self.place = numbering(groups)
        self.count = len(self.place)
        self._known: dict[Layer, float] = {}
        self._good: dict[tuple[str, int], tuple[int, ...]] = {}
        graph = Graph(groups.model)
        self.nodes = tuple(self._nodes(graph))
        self.staircase = staircase.of_size(
            sum(node.layer.weights for node in self.nodes if node.layer.kind != OTHER)
        )
        names = list(graph.nodes)
        self.blocks = tuple(blocks)
        self.inside: tuple[frozenset[int], ...] = tuple(
            frozenset(i for i, node in enumerate(names) if set(node.output) & set(block.inner))
            for block in self.blocks
        )

    def good_widths(self, kind: str, most: int) -> tuple[int, ...]:
        """Return the widths of a kind of layer at which a step ends, ascending, up to `most`."""
        if (kind, most) not in self._good:
            self._good[kind, most] = tuple(self.staircase.good_widths(kind, most))
        return self._good[kind, most]

    def units(self, group: str) -> np.ndarray:
        """Return the places of a group's units in the numbering."""
        return np.array([self.place[int(unit)] for unit in self.groups.named(group).units], np.int64)

    @cached_property
    def touching(self) -> dict[str, tuple[Node, ...]]:
        """The nodes whose cost hangs on a group, by its name."""
        owner = np.empty(self.count, object)
        for group in self.groups.groups:
            owner[self.units(group.name)] = group.name
        found: dict[str, list[Node]] = {group.name: [] for group in self.groups.groups}
        for node in self.nodes:
            for name in dict.fromkeys([*owner[node.outputs.units], *owner[node.inputs.units]]):
                found[name].append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def node_ms(self, node: Node, gone: np.ndarray) -> float:
        """Return the predicted milliseconds of a node."""
        layer = node.at(node.outputs.kept(gone), node.inputs.kept(gone))
        if layer not in self._known:
            self._known[layer] = layer.cost(self.staircase)
        return self._known[layer]

    def node_multiply_adds(self, node: Node, gone: np.ndarray) -> int:
        """Return the multiply-adds of a node with weights, 0 of another."""
        return node.at(node.outputs.kept(gone), node.inputs.kept(gone)).multiply_adds if node.weighted else 0

    def left_out(self, dropped: Iterable[int]) -> frozenset[int]:
        """Return the nodes (their index) of these blocks (their number)."""
        return frozenset().union(*(self.inside[number] for number in dropped))

    def ms(self, gone: np.ndarray, dropped: Iterable[int] = ()) -> float:
        """Return the predicted milliseconds of one run."""
        out = self.left_out(dropped)
        run_ms = self.staircase.run_ns / NS_PER_MS
        return run_ms + sum(self.node_ms(node, gone) for node in self.nodes if node.index not in out)

    def multiply_adds(self, gone: np.ndarray, dropped: Iterable[int] = ()) -> int:
        """Return the multiply-adds of one run."""
        out = self.left_out(dropped)
        return sum(self.node_multiply_adds(node, gone) for node in self.nodes if node.index not in out)

    def parameters(self, gone: np.ndarray, dropped: Iterable[int] = ()) -> int:
        """Return the number of elements of floating-point constants; those that only dropped blocks read are gone."""
        out = self.left_out(dropped)
        return sum(
            math.prod([axis.kept(gone) for axis in axes]) * rest
            for axes, rest, readers in self._tensors
            if not readers or not readers <= out
        )

    def totals(self, gone: np.ndarray, dropped: Iterable[int] = ()) -> Totals:
        """Return all of them."""
        dropped = tuple(dropped)
        return Totals(
            self.multiply_adds(gone, dropped), self.parameters(gone, dropped), self.ms(gone, dropped)
        )

    def _axis(self, labels: np.ndarray) -> Axis:
        roots, counts = np.unique(self.groups.found.units.find(labels), return_counts=True)
        places = np.array([self.place.get(int(root), -1) for root in roots], np.int64)
        return Axis(int(labels.size), places[places >= 0], counts[places >= 0])

    def _nodes(self, graph: Graph) -> Iterable[Node]:
        shapes = infer(graph.without_weights())
        labelled = {layer.node: layer for layer in self.groups.layers}
        for index, node in enumerate(graph.nodes):
            layer = work_of(node, graph, shapes)
            if layer is None:
                continue
            known = labelled.get(index)
            if known is not None:
                outputs, inputs = self._axis(known.outputs), self._axis(known.inputs)
            else:
                made = self.groups.found.labels.get(node.output[0], np.zeros(1, np.int64))
                outputs = inputs = self._axis(made)
            yield Node(index, node.name or node.output[0], layer, outputs, inputs, known is not None)

    @cached_property
    def _tensors(self) -> list[tuple[list[Axis], int, frozenset[int]]]:
        """For each constant: the axes that are cut, the number of elements at one place of them, and who reads it."""
        cuts: dict[str, dict[int, Axis]] = {}
        for slot in self.groups.found.slots:
            cuts.setdefault(slot.tensor, {})[slot.axis] = self._axis(slot.labels)
        graph = Graph(self.groups.model)
        readers: dict[str, set[int]] = {}
        for index, node in enumerate(graph.nodes):
            for name in node.input:
                readers.setdefault(name, set()).add(index)
        found = []
        for name, tensor in graph.initializers.items():
            if tensor.data_type in FLOATING:
                axes = list(cuts.get(name, {}).values())
                rest = math.prod(tensor.dims) // max(math.prod(axis.size for axis in axes), 1)
                found.append((axes, rest, frozenset(readers.get(name, ()))))
        return found
