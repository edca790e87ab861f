"""Whole layers and blocks of a network: which stretches may be replaced by their own input, and doing so.

A block lies between two points of the trunk (see `trunk`) that have the same shape and element type: layers of a
transformer with their norms before or after, residual blocks, mixers, layers of equal width in a chain. Layers that
repeat are found as repeated sequences of the same structure, so that attention and its dense layers go together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ...graph.edit import Graph, replace, standard
from ...model import Model
from .effect import answers, change
from .kinds import Kind, Kinds
from .trunk import SHAPES, Flow, Segment, segments


@dataclass(frozen=True)
class Block:
    """A stretch from the tensor `input` to the tensor `output` that may be left out.

    `inner` are the tensors that its nodes make, `ops` their operators in order, `parameters` the number of weights that
    go with it. Blocks of the same `family` repeat one structure in a row; families count from 0 along the trunk.
    """

    input: str
    output: str
    inner: tuple[str, ...]
    ops: tuple[str, ...]
    parameters: int
    family: int

    @property
    def name(self) -> str:
        """What to call it: the tensor that it ends in."""
        return self.output


def blocks(
    model: Model, *, feeds: Mapping[str, np.ndarray] | None = None, sublayers: bool = False
) -> tuple[Block, ...]:
    """Return the blocks of a model in the order of the trunk; they do not overlap.

    With `sublayers`, the parts of a repeated layer (its attention, its dense layers) are blocks of their own. `feeds`
    is an input that free dimensions are probed with, where shape inference cannot tell them; made up otherwise.
    """
    graph = Graph(model)
    flow = Flow(graph)
    trunk = segments(flow)
    kinds = Kinds(model, graph, [name for s in trunk for name in (s.input, s.output)], feeds)
    known = [_signature(graph, segment, kinds) for segment in trunk]
    stretches = _repeated(trunk, known, kinds)
    stretches = [part for s in stretches for part in (_split(trunk, s, kinds) if sublayers else [s])]
    covered = {i for start, stop, _ in stretches for i in range(start, stop)}
    stretches += _alone(trunk, covered, kinds, len(trunk))
    found: list[Block] = []
    families: dict[int, int] = {}
    for start, stop, family in sorted(stretches):
        part = trunk[start:stop]
        if _separable(flow, part, kinds):
            number = families.setdefault(family, len(families))
            found.append(_block(graph, part, number))
    return tuple(found)


def drop(model: Model, chosen: Iterable[Block]) -> Model:
    """Return the model without these blocks: what read their output reads their input.

    Raises InputError for a block that the model does not have.
    """
    graph = Graph(model)
    moved: dict[str, str] = {}
    for block in chosen:
        if block.output not in graph.producer:
            raise InputError(f"the model has no block that ends in {block.output!r}")
        moved[block.output] = block.input
        outside = {name for name in block.inner if name != block.output}
        for name in outside:  # what asks for a shape inside asks for that of the input, which is the same
            for reader in graph.readers.get(name, []):
                if not outside.intersection(reader.output) and standard(reader, *SHAPES):
                    replace(reader.input, name, block.input)
    for output, start in moved.items():
        target = start
        while target in moved:
            target = moved[target]
        if graph.kept(output):
            graph.remove([graph.producer[output]])
            graph.add_node("Identity", [target], output)
        else:
            for reader in graph.nodes:
                replace(reader.input, output, target)
    graph.index()
    return graph.build()


def importance(
    model: Model,
    found: Sequence[Block],
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> tuple[float, ...]:
    """Return how much the outputs change without each block: the mean square of the change over that of the output.

    A change of many outputs is the mean over them. Raises InputError where ONNX Runtime refuses a model.
    """
    rows = list(batches)
    if not rows:
        raise InputError("measuring what a layer is worth needs rows of data")
    wanted = answers(model, rows)
    changes = []
    for number, block in enumerate(found):
        changes.append(change(wanted, answers(drop(model, [block]), rows)))
        progress("weighing layers", (number + 1) / len(found))
    return tuple(changes)


Stretch = tuple[int, int, int]  # first segment, the one after the last, family


def _repeated(trunk: Sequence[Segment], known: Sequence[object], kinds: Kinds) -> list[Stretch]:
    """Return repeats of a sequence of segments, those that cover most first, as one stretch per repeat."""
    free = [True] * len(trunk)
    found: list[Stretch] = []
    while True:
        best = (0, 0, 0, 0)  # segments covered, -period, -start, repeats
        for start in range(len(trunk)):
            if not trunk[start].heavy or not free[start]:
                continue
            for period in range(1, (len(trunk) - start) // 2 + 1):
                if not free[start + period - 1]:
                    break
                if not kinds.same(trunk[start].input, trunk[start + period - 1].output):
                    continue
                count = _count(known, free, start, period)
                if count > 1:
                    best = max(best, (count * period, -period, -start, count))
        covered, period, start, count = best[0], -best[1], -best[2], best[3]
        if not covered:
            return found
        found += [(s, s + period, start) for s in range(start, start + covered, period)]
        free[start : start + covered] = [False] * (period * count)


def _count(known: Sequence[object], free: Sequence[bool], start: int, period: int) -> int:
    count, position = 1, start + period
    while position + period <= len(known) and all(
        free[position + i] and known[position + i] == known[start + i] for i in range(period)
    ):
        count, position = count + 1, position + period
    return count


def _split(trunk: Sequence[Segment], stretch: Stretch, kinds: Kinds) -> list[Stretch]:
    """Cut a repeated layer before each heavy segment, where the parts keep the shape; else leave it whole."""
    start, stop, family = stretch
    cuts = [i for i in range(start, stop) if trunk[i].heavy] + [stop]
    parts = list(pairwise(cuts))
    if any(not kinds.same(trunk[a].input, trunk[b - 1].output) for a, b in parts):
        return [stretch]
    return [(a, b, family * (len(trunk) + 1) + number) for number, (a, b) in enumerate(parts)]


def _alone(trunk: Sequence[Segment], covered: set[int], kinds: Kinds, base: int) -> list[Stretch]:
    """Return segments that repeat nothing; a layer in a chain takes its norm and activation with it."""
    found = []
    for start, segment in enumerate(trunk):
        if start in covered or not segment.heavy or not kinds.same(segment.input, segment.output):
            continue
        stop = start + 1
        while (
            segment.chain
            and stop < len(trunk)
            and stop not in covered
            and not trunk[stop].heavy
            and kinds.same(trunk[stop].input, trunk[stop].output)
        ):
            stop += 1
        found.append((start, stop, -base - start))
    return found


def _separable(flow: Flow, part: Sequence[Segment], kinds: Kinds) -> bool:
    """Say whether nothing outside needs what is computed inside, but for its shape where that is the input's."""
    inside = {id(node) for segment in part for node in segment.nodes}
    names = {name for segment in part for node in segment.nodes for name in node.output if name}
    for name in names - {part[-1].output}:
        if flow.graph.kept(name):
            return False
        for reader in flow.graph.readers.get(name, []):
            if id(reader) in inside or flow.ends_in(reader, inside):
                continue
            if not standard(reader, *SHAPES) or not kinds.inferred_same(name, part[0].input):
                return False
    return True


def _signature(graph: Graph, segment: Segment, kinds: Kinds) -> object:
    """Return what two segments of the same structure share: operators, shapes of weights, shapes at both ends.

    Attributes are left out: layers that differ in dilation only are repeats. The order of operators on parallel
    branches is the exporter's, so they are sorted.
    """
    nodes = []
    for node in segment.nodes:
        stored = (_stored(graph, name) for name in node.input)
        nodes.append((node.domain, node.op_type, tuple(tuple(t.dims) for t in stored if t is not None)))
    ends: tuple[Kind | None, ...] = (kinds.get(segment.input), kinds.get(segment.output))
    return sorted(nodes), ends


def _stored(graph: Graph, name: str) -> onnx.TensorProto | None:
    """Return a constant, also through the Identity that exporters put where two are equal."""
    maker = graph.producer.get(name)
    while maker is not None and standard(maker, "Identity"):
        name = maker.input[0]
        maker = graph.producer.get(name)
    return graph.initializers.get(name)


def _block(graph: Graph, part: Sequence[Segment], family: int) -> Block:
    nodes = [node for segment in part for node in segment.nodes]
    inside = {id(node) for node in nodes}
    weights = {
        name: tensor
        for node in nodes
        for name in node.input
        if (tensor := graph.initializers.get(name)) is not None and _is_float(tensor)
    }
    own = [
        math.prod(tensor.dims)
        for name, tensor in weights.items()
        if all(id(reader) in inside for reader in graph.readers[name])
    ]
    return Block(
        input=part[0].input,
        output=part[-1].output,
        inner=tuple(name for node in nodes for name in node.output if name),
        ops=tuple(node.op_type for node in nodes),
        parameters=sum(own),
        family=family,
    )


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
    )
