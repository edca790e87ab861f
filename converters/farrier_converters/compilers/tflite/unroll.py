"""Control flow whose course is known is written out: a branch that is always taken, a loop of a known length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from ...graph.edit import Graph, attribute, standard
from ...graph.types import TensorType, infer
from ...model import Model

MAX_STEPS = 512  # of a loop that is written out
MAX_NODES = 1 << 16  # of all its steps together


def unroll(model: Model) -> Model:
    """Return the model with the outermost such nodes written out, or the model itself where there are none.

    Nodes that contradict their operator's definition stay, and so do all others then.
    """
    try:
        return _unrolled(model)
    except (AttributeError, LookupError, TypeError, ValueError):
        return model


def _unrolled(model: Model) -> Model:
    graph = Graph(model)
    types = infer(graph.without_weights())
    changed = False
    for node in [n for n in graph.nodes if standard(n, "If", "Scan", "Loop")]:
        written = {"If": _branch, "Scan": _scan, "Loop": _loop}[node.op_type](graph, node, types)
        if written:
            graph.remove([node])
            changed = True
    if not changed:
        return model
    graph.index()
    return graph.build()


def _branch(graph: Graph, node: onnx.NodeProto, _types: Mapping[str, TensorType]) -> bool:
    condition = graph.constant(node.input[0])
    if condition is None or condition.size != 1:
        return False
    body = attribute(node, "then_branch" if condition.ravel()[0] else "else_branch")
    made = _inline(graph, body, {}, node.output[0])
    for name, output in zip(made, node.output, strict=True):
        if output:
            graph.add_node("Identity", [name], output)
    return True


def _scan(graph: Graph, node: onnx.NodeProto, types: Mapping[str, TensorType]) -> bool:
    body = attribute(node, "body")
    scanned = attribute(node, "num_scan_inputs")
    states, inputs = (
        list(node.input[: len(node.input) - scanned]),
        list(node.input[len(node.input) - scanned :]),
    )
    axes = attribute(node, "scan_input_axes", [0] * scanned)
    backwards = attribute(node, "scan_input_directions", [0] * scanned)
    steps = _length(types, inputs[0], axes[0])
    if steps is None or not _affordable(body, steps) or graph.opset < 9:
        return False
    collected: list[list[str]] = [[] for _ in node.output[len(states) :]]
    for t in range(steps):
        slices = []
        for name, axis, reverse in zip(inputs, axes, backwards, strict=True):
            index = graph.add_constant(f"{node.output[0]}/step", np.array(steps - 1 - t if reverse else t))
            part = graph.fresh(f"{name}/step_{t}")
            graph.add_node("Gather", [name, index], part, axis=axis)
            slices.append(part)
        given = dict(zip((v.name for v in body.input), [*states, *slices], strict=True))
        made = _inline(graph, body, given, f"{node.output[0] or node.name}/{t}")
        states = made[: len(states)]
        for parts, name in zip(collected, made[len(states) :], strict=True):
            parts.append(name)
    outputs = list(node.output)
    axes = attribute(node, "scan_output_axes", [0] * len(collected))
    reverses = attribute(node, "scan_output_directions", [0] * len(collected))
    _finish(graph, outputs[: len(states)], states)
    for output, parts, axis, reverse in zip(outputs[len(states) :], collected, axes, reverses, strict=True):
        _stack(graph, output, parts[::-1] if reverse else parts, axis)
    return True


def _loop(graph: Graph, node: onnx.NodeProto, _types: Mapping[str, TensorType]) -> bool:
    """A loop that runs to its end: its body's condition is what went in, or constantly true."""
    body = attribute(node, "body")
    count = graph.constant(node.input[0]) if node.input[0] else None
    going = graph.constant(node.input[1]) if len(node.input) > 1 and node.input[1] else np.array(True)
    if count is None or going is None or not going.all() or not _goes_on(body):
        return False
    steps = int(count.ravel()[0])
    if steps < 1 or not _affordable(body, steps):
        return False
    states = list(node.input[2:])
    collected: list[list[str]] = [[] for _ in node.output[len(states) :]]
    true = graph.add_constant(f"{node.output[0]}/going", np.array(True))
    for t in range(steps):
        index = graph.add_constant(f"{node.output[0]}/step", np.array(t))
        given = dict(zip((v.name for v in body.input), [index, true, *states], strict=True))
        made = _inline(graph, body, given, f"{node.output[0] or node.name}/{t}")[1:]
        states = made[: len(states)]
        for parts, name in zip(collected, made[len(states) :], strict=True):
            parts.append(name)
    _finish(graph, list(node.output[: len(states)]), states)
    for output, parts in zip(node.output[len(states) :], collected, strict=True):
        _stack(graph, output, parts, 0)
    return True


def _goes_on(body: onnx.GraphProto) -> bool:
    name = body.output[0].name
    for node in reversed(body.node):
        if name in node.output:
            if node.op_type == "Constant":
                return bool(numpy_helper.to_array(attribute(node, "value")).all())
            if node.op_type != "Identity":
                return False
            name = node.input[0]
    if name == body.input[1].name:
        return True
    return any(t.name == name and bool(numpy_helper.to_array(t).all()) for t in body.initializer)


def _length(types: Mapping[str, TensorType], name: str, axis: int) -> int | None:
    kind = types.get(name)
    if kind is None or kind.shape is None or not -len(kind.shape) <= axis < len(kind.shape):
        return None
    return kind.shape[axis]


def _affordable(body: onnx.GraphProto, steps: int) -> bool:
    return 1 <= steps <= MAX_STEPS and steps * len(body.node) <= MAX_NODES


def _finish(graph: Graph, outputs: Sequence[str], names: Sequence[str]) -> None:
    for output, name in zip(outputs, names, strict=True):
        if output:
            graph.add_node("Identity", [name], output)


def _stack(graph: Graph, output: str, parts: Sequence[str], axis: int) -> None:
    if not output:
        return
    wide = []
    for part in parts:
        wide.append(graph.fresh(f"{part}/stacked"))
        if graph.opset < 13:
            graph.add_node("Unsqueeze", [part], wide[-1], axes=[axis])
        else:
            graph.add_node("Unsqueeze", [part, graph.add_constant("axes", np.array([axis]))], wide[-1])
    graph.add_node("Concat", wide, output, axis=axis)


def _inline(graph: Graph, body: onnx.GraphProto, given: Mapping[str, str], scope: str) -> list[str]:
    """Add a subgraph's nodes to the graph under names of their own; return the names of its outputs."""
    names = dict(given)
    for tensor in body.initializer:
        names[tensor.name] = graph.add_constant(f"{scope}/{tensor.name}", numpy_helper.to_array(tensor))
    for node in body.node:
        for output in node.output:
            if output:
                names[output] = graph.fresh(f"{scope}/{output}")
    for node in body.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.name = graph.fresh(f"{scope}/{node.name or node.op_type}")
        _rename(copy, names)
        graph.nodes.append(copy)
    return [names.get(value.name, value.name) for value in body.output]


def _rename(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for field in node.attribute:
        for inner in [field.g] if field.type == onnx.AttributeProto.GRAPH else field.graphs:
            own = {v.name for v in inner.input} | {t.name for t in inner.initializer}
            own.update(output for n in inner.node for output in n.output)
            outer = {name: new for name, new in names.items() if name not in own}
            for child in inner.node:
                _rename(child, outer)
            for value in inner.output:
                value.name = outer.get(value.name, value.name)
