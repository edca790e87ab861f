"""Where a student and its teacher can be compared inside: points of both trunks, and maps of attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.errors import InputError, UsageError

from ..graph.edit import Graph, attribute, standard
from ..model import Model
from ..pruning.blocks.kinds import Kind, Kinds
from ..pruning.blocks.trunk import NORMS, Flow, segments

MOST = 8  # pairs of points
LIKE = 0.5  # mean cosine between weights that were once the same
STEPS = 4  # nodes away from a tensor that are asked which axis holds its channels
FIRST = ("Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization")
ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Clip", "Gelu", "HardSwish", "Elu", "Selu", "Sigmoid", "Tanh")
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool")
LAST = ("MatMul", "Gemm", "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")


@dataclass(frozen=True)
class Point:
    """A tensor to be compared, and which of its axes holds channels."""

    name: str
    axis: int


@dataclass(frozen=True)
class Pair:
    """Two tensors that should say the same."""

    student: Point
    teacher: Point


def ends(model: Model) -> list[str]:
    """Return the tensors in which the layers of a model's trunk end, in order; its outputs are not among them."""
    return _ends(Graph(model))


def matched(
    student: Model, teacher: Model, *, feeds: Mapping[str, np.ndarray] | None = None
) -> tuple[Pair, ...]:
    """Pair points of two trunks.

    Where the student was made from the teacher, their points have the same names: what one of its layers hands
    to the next is paired with what that next one gets in the teacher, behind all layers that were left out. Other
    networks are paired by depth: in those of maps the last point of each size that both have, else the layers spread
    evenly (Jiao et al., "TinyBERT", arXiv 1909.10351: layer i of m learns from layer i n / m of n). Raises InputError
    where one of them has no trunk with such points.
    """
    own, others = ends(student), ends(teacher)
    for model, names in ((student, own), (teacher, others)):
        if not names:
            raise InputError(
                f"no tensor of {model.name} lies on all ways to its outputs: name the pairs to be compared"
            )
    if own == others or (set(own) <= set(others) and related(student, teacher) is not False):
        return paired(student, teacher, _by_name(own, others))
    return paired(student, teacher, _by_depth(student, teacher, feeds))


def related(student: Model, teacher: Model) -> bool | None:
    """Say whether a student's weights came from the teacher's: those of the same names and shapes look alike.

    None: there are none of the same names and shapes to compare.
    """
    stored = {tensor.name: tensor for tensor in teacher.proto.graph.initializer}
    likeness = []
    for tensor in student.proto.graph.initializer:
        other = stored.get(tensor.name)
        if other is None or other.dims != tensor.dims or len(tensor.dims) < 2:
            continue
        if tensor.data_type == other.data_type == onnx.TensorProto.FLOAT:
            left, right = (numpy_helper.to_array(t).ravel().astype(np.float64) for t in (tensor, other))
            likeness.append(left @ right / max(float(np.sqrt(left @ left) * np.sqrt(right @ right)), 1e-12))
    return float(np.mean(likeness)) > LIKE if likeness else None


def _by_name(own: Sequence[str], others: Sequence[str]) -> list[tuple[str, str]]:
    places = {name: place for place, name in enumerate(others)}
    pairs = []
    for number, name in enumerate(own):
        last = number + 1 == len(own)
        following = len(others) if last else places[own[number + 1]]
        pairs.append((name, others[max(following - 1, places[name])]))
    return _some(pairs)


def _by_depth(
    student: Model, teacher: Model, feeds: Mapping[str, np.ndarray] | None
) -> list[tuple[str, str]]:
    levels, others = (_levels(model, feeds) for model in (student, teacher))
    found: list[tuple[str, str]] = []
    for level, names in levels.items():
        if level in others:
            found += [(names[-1], others[level][-1])] if len(level) > 1 else spread(names, others[level])
    return found or [(ends(student)[-1], ends(teacher)[-1])]


def _some(pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    count = min(MOST, len(pairs))
    return [pairs[(i + 1) * len(pairs) // count - 1] for i in range(count)]


def paired(student: Model, teacher: Model, names: Sequence[Sequence[str]]) -> tuple[Pair, ...]:
    """Return pairs of tensors named (student's, teacher's); raises UsageError for a name that is not there."""
    graphs = (Graph(student), Graph(teacher))
    found = []
    for pair in names:
        if len(pair) != 2:
            raise UsageError(f"a pair is two tensors, the student's and the teacher's; {list(pair)} is not")
        points = []
        for graph, name in zip(graphs, pair, strict=True):
            if name not in graph.producer:
                raise UsageError(f"{graph.model.name} makes no tensor called {name!r}")
            points.append(Point(name, channel_axis(graph, name)))
        found.append(Pair(*points))
    return tuple(found)


def attention_maps(model: Model) -> list[str]:
    """Return the weights of attention, in order: what a Softmax over the last axis hands to a product."""
    graph = Graph(model)
    flow = Flow(graph)
    default = 1 if graph.opset < 13 else -1
    return [
        node.output[0]
        for node in graph.ordered()
        if standard(node, "Softmax")
        and node.output[0] in flow.active
        and attribute(node, "axis", default) in (-1, 3)
        and _feeds_product(graph, node.output[0])
    ]


def spread(student: Sequence[str], teacher: Sequence[str]) -> list[tuple[str, str]]:
    """Pair the i-th of m with the (i n / m)-th of n, counted from 1; at most `MOST` pairs, the last among them."""
    m, n = len(student), len(teacher)
    return _some([(student[i], teacher[max((i + 1) * n // m, 1) - 1]) for i in range(m)])


def channel_axis(graph: Graph, name: str) -> int:
    """Return which axis of a tensor holds channels: 1 next to convolutions, the last one next to dense layers."""
    for neighbours in (_readers, _makers):
        waiting, seen = [name], {name}
        for _ in range(STEPS):
            nodes = [node for tensor in waiting for node in neighbours(graph, tensor)]
            for node in nodes:
                if standard(node, *FIRST, *POOLS):
                    return 1
                if standard(node, *LAST):
                    return -1
            ends = nodes if neighbours is _readers else []
            names = [t for node in ends for t in node.output] or [t for node in nodes for t in node.input]
            waiting = [t for t in dict.fromkeys(names) if t and t not in seen]
            seen.update(waiting)
    return 1


def _readers(graph: Graph, name: str) -> list[onnx.NodeProto]:
    return graph.readers.get(name, [])


def _makers(graph: Graph, name: str) -> list[onnx.NodeProto]:
    return [graph.producer[name]] if name in graph.producer else []


def _feeds_product(graph: Graph, name: str) -> bool:
    for _ in range(STEPS):
        readers = graph.readers.get(name, [])
        if any(standard(node, "MatMul", "Einsum") for node in readers):
            return True
        if len(readers) != 1 or not standard(readers[0], "Dropout", "Identity", "Cast", "Where", "Reshape"):
            return False
        name = readers[0].output[0]
    return False


def _ends(graph: Graph) -> list[str]:
    """Return the last point of each heavy segment with its activation, and its norm in a chain."""
    found: list[str] = []
    grows, chain = False, True
    for segment in segments(Flow(graph)):
        ops = (*ACTIVATIONS, *NORMS) if chain else ACTIVATIONS
        if segment.heavy or not found:
            found.append(segment.output)
            grows, chain = True, segment.chain
        elif grows and all(standard(node, *ops) for node in segment.nodes):
            found[-1] = segment.output
        else:
            grows = False
    outputs = set(graph.outputs)
    return [name for name in found if name not in outputs]


def _levels(model: Model, feeds: Mapping[str, np.ndarray] | None) -> dict[tuple, list[str]]:
    """Return the points by their level: rank and, for maps, the sizes beside channels."""
    graph = Graph(model)
    names = _ends(graph)
    if not names:
        return {}
    kinds = Kinds(model, graph, names, feeds)
    levels: dict[tuple, list[str]] = {}
    for name in names:
        kind = kinds.get(name)
        if kind is not None:
            levels.setdefault(_level(kind, channel_axis(graph, name)), []).append(name)
    return levels


def _level(kind: Kind, axis: int) -> tuple:
    sizes = kind[1]
    if len(sizes) < 4:
        return (len(sizes),)
    rest = list(sizes[1:])
    rest.pop(axis - 1 if axis > 0 else -1)
    return (len(sizes), *rest)
