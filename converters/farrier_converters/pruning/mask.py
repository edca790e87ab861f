"""The masked dense twin of a pruned model: all channels are there, and those that would go count for nothing.

It says what pruning has to compute: the two agree to rounding. Sums over channels meet zeros, and means are over the
channels that stay.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph.edit import Graph, attribute
from ..model import Model
from .group import Groups
from .site import Findings, Kept
from .walk import kept_by


def masked(groups: Groups, removed: Iterable[int] | np.ndarray) -> Model:
    """Return the dense model in which these units are masked."""
    found = groups.found
    kept = kept_by(found, np.asarray(list(removed), np.int64))
    graph = Graph(groups.model)
    nodes = list(graph.nodes)
    for number, position, labels in found.sums:
        stays = kept(labels)
        if not stays.all():
            node, name = nodes[number], nodes[number].input[position]
            mask = _mask(graph, found, kept, name, labels)
            node.input[position] = _times(graph, name, mask, f"{node.output[0]}/{position}")
    for number, position, labels, value in found.fills:
        stays = kept(labels)
        if not stays.all():
            _fill(graph, nodes[number], position, stays, value)
    for number, labels in found.statistics:
        stays = kept(labels)
        if not stays.all():
            mask = _mask(graph, found, kept, nodes[number].input[0], labels)
            _masked_statistics(graph, nodes[number], stays, mask)
    for slot in found.zeros:
        stays = kept(slot.labels)
        value = np.array(numpy_helper.to_array(graph.initializers[slot.tensor]))
        np.moveaxis(value, slot.axis, 0)[~stays] = 0
        graph.initializers[slot.tensor] = numpy_helper.from_array(value, slot.tensor)
    graph.index()
    return graph.build()


def _mask(graph: Graph, found: Findings, kept: Kept, name: str, labels: np.ndarray) -> str:
    """Return the name of zeros and ones that broadcast to a tensor.

    What was moved is masked as it was before, and the mask is moved too: channels may lie on one axis with free sizes.
    """
    maker = graph.producer.get(name)
    moved = maker if maker is not None and maker.op_type in ("Reshape", "Transpose") else None
    before = None if moved is None else found.labels.get(moved.input[0])
    if moved is None or before is None:
        return graph.add_constant(f"{name}/mask", kept(labels).astype(np.float32))
    mask, made = _mask(graph, found, kept, moved.input[0], before), graph.fresh(f"{name}/mask")
    if moved.op_type == "Reshape":
        shape, whole = graph.fresh(f"{name}/shape"), graph.fresh(f"{name}/whole")
        graph.add_node("Shape", [moved.input[0]], shape)
        graph.add_node("Expand", [mask, shape], whole)
        graph.add_node("Reshape", [whole, moved.input[1]], made)
    else:
        graph.add_node(
            "Transpose", [mask], made, perm=attribute(moved, "perm", list(range(labels.ndim))[::-1])
        )
    return made


def _times(graph: Graph, name: str, mask: str, output: str) -> str:
    made = graph.fresh(f"{output}/masked")
    graph.add_node("Mul", [name, mask], made)
    return made


def _fill(graph: Graph, node: onnx.NodeProto, position: int, stays: np.ndarray, value: float) -> None:
    output = f"{node.output[0]}/{position}"
    mask = graph.add_constant(f"{output}/mask", stays)
    nothing = graph.add_constant(f"{output}/nothing", np.array(value, np.float32))
    made = graph.fresh(f"{output}/filled")
    graph.add_node("Where", [mask, node.input[position], nothing], made)
    node.input[position] = made


def _mean(graph: Graph, name: str, stays: np.ndarray, mask: str, axes: list[int], output: str) -> str:
    """Mean over axes of the channels that stay, in nodes that every operator set knows; axes keep one element."""
    weights = _times(graph, name, mask, f"{output}/weighed")
    mean = graph.fresh(f"{output}/mean")
    attributes = {} if graph.opset >= 18 else {"axes": axes}
    given = [graph.add_constant(f"{mean}/axes", np.array(axes, np.int64))] if graph.opset >= 18 else []
    graph.add_node("ReduceMean", [weights, *given], mean, keepdims=1, **attributes)
    share = stays.mean(axis=tuple(a for a in axes if a < stays.ndim), keepdims=True, dtype=np.float32)
    scale = graph.add_constant(f"{mean}/share", np.maximum(share, np.float32(1e-12)))
    made = graph.fresh(f"{mean}/kept")
    graph.add_node("Div", [mean, scale], made)
    return made


def _masked_statistics(graph: Graph, node: onnx.NodeProto, stays: np.ndarray, mask: str) -> None:
    rank, output = stays.ndim, node.output[0]
    if node.op_type == "ReduceMean":
        _masked_mean(graph, node, stays, mask)
        return
    if node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = list(range(int(attribute(node, "axis", -1)) % rank, rank))
    elif node.op_type == "InstanceNormalization":
        axes = list(range(2, rank))
    else:
        _compacted(graph, node, stays.reshape(-1))
        return
    graph.remove([node])
    x = node.input[0]
    if node.op_type != "RMSNormalization":
        mean = _mean(graph, x, stays, mask, axes, output)
        centred = graph.fresh(f"{output}/centred")
        graph.add_node("Sub", [x, mean], centred)
        x = centred
    square = graph.fresh(f"{output}/square")
    graph.add_node("Mul", [x, x], square)
    variance = _mean(graph, square, stays, mask, axes, f"{output}/variance")
    epsilon = graph.add_constant(f"{output}/epsilon", np.array(attribute(node, "epsilon", 1e-5), np.float32))
    for op, inputs, name in (
        ("Add", [variance, epsilon], "sum"),
        ("Sqrt", [f"{output}/sum"], "deviation"),
        ("Div", [x, f"{output}/deviation"], "normal"),
    ):
        graph.add_node(op, inputs, f"{output}/{name}")
    _scaled(graph, node, rank)


def _compacted(graph: Graph, node: onnx.NodeProto, stays: np.ndarray) -> None:
    """Let a norm see the channels (axis 1) that stay alone, and put zeros where the others were."""
    output, made = node.output[0], graph.fresh(f"{node.output[0]}/compact")
    kept = graph.add_constant(f"{output}/kept", np.flatnonzero(stays))
    for position, name in enumerate(node.input):
        constant = graph.constant(name)
        if position and (constant is None or len(constant) != len(stays)):
            continue  # one scale for each group
        node.input[position] = graph.fresh(f"{output}/{position}/kept")
        graph.add_node("Gather", [name, kept], node.input[position], axis=0 if position else 1)
    node.output[0] = made
    first, zero = graph.fresh(f"{output}/first"), graph.fresh(f"{output}/zero")
    graph.add_node("Gather", [made, graph.add_constant(f"{first}/place", np.array([0]))], first, axis=1)
    graph.add_node("Sub", [first, first], zero)
    graph.add_node("Concat", [made, zero], f"{output}/padded", axis=1)
    places = np.where(stays, np.cumsum(stays) - 1, stays.sum())
    graph.add_node(
        "Gather", [f"{output}/padded", graph.add_constant(f"{output}/places", places)], output, axis=1
    )


def _scaled(graph: Graph, node: onnx.NodeProto, rank: int) -> None:
    """Multiply and shift as the norm did."""
    output, last = node.output[0], f"{node.output[0]}/normal"
    for op, position in (("Mul", 1), ("Add", 2)):
        if position < len(node.input) and node.input[position]:
            name = node.input[position]
            if node.op_type == "InstanceNormalization":
                shape = graph.add_constant(f"{output}/{op}/shape", np.array([1, -1, *[1] * (rank - 2)]))
                read, name = name, graph.fresh(f"{output}/{op}/factor")
                graph.add_node("Reshape", [read, shape], name)
            made = graph.fresh(f"{output}/{op}d")
            graph.add_node(op, [last, name], made)
            last = made
    graph.add_node("Identity", [last], output)


def _masked_mean(graph: Graph, node: onnx.NodeProto, stays: np.ndarray, mask: str) -> None:
    given = attribute(node, "axes")
    if given is None and len(node.input) > 1:
        given = graph.constant(node.input[1])
    axes = list(range(stays.ndim)) if given is None else [int(a) % stays.ndim for a in np.ravel(given)]
    graph.remove([node])
    mean = _mean(graph, node.input[0], stays, mask, axes, node.output[0])
    if attribute(node, "keepdims", 1):
        graph.add_node("Identity", [mean], node.output[0])
    elif graph.opset >= 13:
        name = graph.add_constant(f"{mean}/squeezed", np.array(axes, np.int64))
        graph.add_node("Squeeze", [mean, name], node.output[0])
    else:
        graph.add_node("Squeeze", [mean], node.output[0], axes=axes)
