"""Tensors that can be scaled channel by channel together, because everything between layers with weights allows it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ...graph.bounds import bounds
from ...graph.edit import Graph, attribute, reads, replace, standard
from ...graph.types import TensorType, infer
from .equalization import HOMOGENEOUS, scalable

RESHAPES = ("Flatten", "Reshape", "Squeeze")


@dataclass(frozen=True)
class Layer:
    """A Conv or Gemm with constant weights: `weight` is [results, reads, taps], one of each where `depthwise`.

    `source` and `result` are the numbers of the groups that it reads from and writes to; None where a tensor has to
    stay as it is.
    """

    node: onnx.NodeProto
    weight: np.ndarray
    depthwise: bool
    source: int | None
    result: int | None


@dataclass(frozen=True)
class Scalable:
    """What can be scaled in a graph: channels of each group, the group of each tensor, and the layers between.

    `clips` are tensors that a Clip bounds from above, and where: their channels may be scaled as far as that clips
    the same values.
    """

    channels: tuple[int, ...]
    groups: dict[str, int]
    layers: tuple[Layer, ...]
    clips: dict[str, float]


def find(graph: Graph) -> Scalable:
    """Group the tensors of a graph [batch, channels, ...] that share one factor per channel.

    For s > 0 and a homogeneous operator f, f(s x) = s f(x); an Add wants the same s on both sides. A group may be
    scaled where only those and layers with constant weights make and read its tensors. A Clip from zero (ReLU6) counts
    as homogeneous where it does not clip.
    """
    types = infer(graph.without_weights())
    roots: dict[str, str] = {}
    fixed = {value.name for value in graph.inputs} | set(graph.outputs) | graph.captured
    layers, clips = [], {}
    for node in graph.nodes:
        if scalable(graph, node):
            layers.append(node)
            if not _splits(graph, node):
                fixed.add(node.input[0])
        elif (top := _top(graph, node)) is not None:
            roots[_root(roots, node.output[0])] = _root(roots, node.input[0])
            clips[node.input[0]] = min(top, clips.get(node.input[0], top))
        elif (tied := _tied(node, types)) is not None and not set(tied) & set(graph.initializers):
            for name in tied[1:]:
                roots[_root(roots, name)] = _root(roots, tied[0])
        else:
            fixed.update((*reads(node), *node.output))
    members: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for node in graph.nodes for name in (*node.input, *node.output)):
        members.setdefault(_root(roots, name), []).append(name)
    made = {node.output[0]: weight_of(graph, node).shape[0] for node in layers}
    numbers: dict[str, int] = {}
    channels: list[int] = []
    for names in members.values():
        counts = {made[name] for name in names if name in made}
        if len(counts) == 1 and not fixed.intersection(names):
            numbers.update(dict.fromkeys(names, len(channels)))
            channels.append(counts.pop())
    found = [_layer(graph, node, numbers) for node in layers]
    clips = {name: top for name, top in clips.items() if name in numbers}
    return Scalable(tuple(channels), numbers, tuple(found), clips)


def scale(graph: Graph, found: Scalable, factors: list[np.ndarray]) -> None:
    """Divide each group's tensors by its factors, in the weights around them. Scaled tensors get new names."""
    for layer in found.layers:
        node, weight = layer.node, np.array(graph.constant(layer.node.input[1]), np.float64)
        axis = _result_axis(node)
        if layer.source is not None:
            along = 0 if layer.depthwise else 1 - axis
            weight *= _along(factors[layer.source], along, weight.ndim)
        if layer.result is not None:
            weight /= _along(factors[layer.result], axis, weight.ndim)
            if len(node.input) > 2 and node.input[2]:
                bias = graph.constant(node.input[2])
                assert bias is not None
                _store(graph, node, 2, bias / factors[layer.result])
        if (layer.source, layer.result) != (None, None):
            _store(graph, node, 1, weight)
    names = {name: graph.fresh(f"{name}_equalized") for name in found.groups}
    for node in graph.nodes:
        for old in dict.fromkeys((*node.input, *node.output)):
            if old in names:
                replace(node.input, old, names[old])
                replace(node.output, old, names[old])
    graph.index()


def weight_of(graph: Graph, node: onnx.NodeProto) -> np.ndarray:
    """Return the weights of a layer as [results, reads, taps]."""
    weight = graph.constant(node.input[1])
    assert weight is not None
    weight = weight if _result_axis(node) == 0 else weight.T
    return weight.reshape(*weight.shape[:2], -1)


def _layer(graph: Graph, node: onnx.NodeProto, numbers: dict[str, int]) -> Layer:
    depthwise = attribute(node, "group", 1) > 1 and _splits(graph, node)
    source, result = numbers.get(node.input[0]), numbers.get(node.output[0])
    return Layer(node, weight_of(graph, node), depthwise, source, result)


def _splits(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether each weight of a layer meets one channel of its own input: dense, or depthwise one to one."""
    groups = attribute(node, "group", 1)
    return groups == 1 or weight_of(graph, node).shape[:2] == (groups, 1)


def _top(graph: Graph, node: onnx.NodeProto) -> float | None:
    """Return where a Clip from zero clips; None for any other node."""
    if not standard(node, "Clip") or node.input[0] in graph.initializers:
        return None
    low, high = bounds(graph, node) or (None, None)
    return high if low == 0.0 and high is not None and high > 0 else None


def _tied(node: onnx.NodeProto, types: dict[str, TensorType]) -> list[str] | None:
    """Return the tensors around a node that have to be scaled alike; None where it allows no scaling."""
    names = [node.input[0], node.output[0]] if node.input else []
    if standard(node, *HOMOGENEOUS) and len([name for name in node.output if name]) == 1:
        return names
    shapes = [types[name].shape if name in types else None for name in (*node.input[:2], node.output[0])]
    if standard(node, "Add"):
        kinds = {(len(shape), *shape[1:2]) if shape else () for shape in shapes}
        alike = len(kinds) == 1 and None not in (kind := kinds.pop()) and len(kind) > 1
        return [*node.input, node.output[0]] if alike else None
    if standard(node, *RESHAPES):
        before, after = shapes[0], shapes[-1]
        if before and after and len(before) > 1 and len(after) > 1:
            single = all(size == 1 for size in (*before[2:], *after[2:]))
            return names if single and before[1] is not None and before[1] == after[1] else None
    return None


def _root(roots: dict[str, str], name: str) -> str:
    while roots.get(name, name) != name:
        name = roots[name]
    return name


def _result_axis(node: onnx.NodeProto) -> int:
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def _store(graph: Graph, node: onnx.NodeProto, position: int, value: np.ndarray) -> None:
    node.input[position] = graph.add_constant(f"{node.input[position]}_equalized", value.astype(np.float32))
