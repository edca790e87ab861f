"""Faults in the network that is quantized, and in the rows that calibrate it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from farrier_converters import data, model, passes
from farrier_converters.graph.edit import Graph

from .planting import Editor, Planted, pick, quantized


def weight_outlier(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One channel of a layer is far larger than the others, and all share one scale."""
    grown, node = _grow_channel(a, rng, undo=False)
    editor = Editor(quantized(grown, rows))
    names = (node.name, node.output[0], *_behind(grown, node))
    editor.share_scale(
        next(n for n in editor.linear(1) if {n.name, n.output[0]} & {*names, f"{names[-1]}_float"})
    )
    return Planted(grown, editor.build(), ("weight outlier channel",), names)


def activation_outlier(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One channel of an activation is far larger than the others; the layer behind weighs it down again."""
    grown, node = _grow_channel(a, rng, undo=True)
    return Planted(
        grown,
        quantized(grown, rows),
        ("activation outlier",),
        (node.name, node.output[0], *_behind(grown, node)),
    )


def _behind(a: model.Model, node: onnx.NodeProto) -> list[str]:
    graph = Graph(a)
    names = []
    reader = graph.only_reader(node.output[0])
    while reader is not None and reader.op_type in ("Relu", "BatchNormalization", "MaxPool"):
        names += [reader.name, reader.output[0]]
        reader = graph.only_reader(reader.output[0])
    return names


def _grow_channel(
    a: model.Model, rng: np.random.Generator, *, undo: bool
) -> tuple[model.Model, onnx.NodeProto]:
    """Make one output channel of a convolution or dense layer much larger; `undo` it in the layer behind."""
    graph, (node, _, behind) = _relu_pair(a, rng)
    times = float(rng.uniform(40, 120))
    channel = _live_channel(graph, node, rng)
    for position in (1, 2):
        if len(node.input) > position and node.input[position]:
            _scale_channel(graph, node, position, _out_axis(node, position), channel, times)
    if undo:
        _scale_channel(graph, behind, 1, 1 - _out_axis(behind, 1), channel, 1 / times)
    return graph.build(), node


def _group(node: onnx.NodeProto) -> int:
    return next((f.i for f in node.attribute if f.name == "group"), 1)


def _out_axis(node: onnx.NodeProto, position: int) -> int:
    transposed = any(f.name == "transB" and f.i for f in node.attribute)
    return 0 if node.op_type == "Conv" or position == 2 or transposed else 1


def _live_channel(graph: Graph, node: onnx.NodeProto, rng: np.random.Generator) -> int:
    """Choose among the channels with the larger weights, which are sure to do something."""
    weight = graph.constant(node.input[1])
    assert weight is not None
    axis = _out_axis(node, 1)
    size = np.abs(weight).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    order = np.argsort(-size)[: max(1, len(size) // 2)]
    return int(order[int(rng.integers(len(order)))])


def _scale_channel(
    graph: Graph, node: onnx.NodeProto, position: int, axis: int, channel: int, times: float
) -> None:
    value = graph.constant(node.input[position])
    assert value is not None
    value = value.copy()
    index = [slice(None)] * value.ndim
    index[axis if value.ndim > 1 else 0] = channel  # type: ignore[call-overload]
    value[tuple(index)] *= np.float32(times)
    node.input[position] = graph.add_constant(f"{node.input[position]}_grown", value)


def clash(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """A convolution is split into two branches that a Concat joins; one computes in far smaller numbers.

    The layer behind weighs that branch up again, so the float network computes what it did.
    """
    graph, (node, relu, behind) = _relu_pair(a, rng, op="Conv")
    channels = _constant(graph, node.input[1]).shape[0]
    cut, times = channels // 2, float(rng.uniform(30, 80))
    small = int(rng.integers(2))
    results = []
    for number, part in enumerate((slice(0, cut), slice(cut, channels))):
        factor = np.float32(1 / times if number == small else 1.0)
        branch = onnx.NodeProto()
        branch.CopyFrom(node)
        branch.name = f"{node.name}_branch{number}"
        for position in range(1, len(node.input)):
            value = _constant(graph, node.input[position])[part] * factor
            branch.input[position] = graph.add_constant(f"{node.input[position]}_{number}", value)
        branch.output[0] = graph.fresh(f"{node.output[0]}_branch{number}")
        graph.nodes.append(branch)
        results.append(
            graph.add_node("Relu", [branch.output[0]], f"{relu.output[0]}_branch{number}").output[0]
        )
    graph.remove([node, relu])
    join = graph.add_node("Concat", results, relu.output[0], axis=1)
    weight = _constant(graph, behind.input[1]).copy()
    weight[:, slice(0, cut) if small == 0 else slice(cut, channels)] *= np.float32(times)
    behind.input[1] = graph.add_constant(f"{behind.input[1]}_grown", weight)
    branched = graph.build()
    return Planted(branched, quantized(branched, rows), ("scale clash",), (join.name, join.output[0]))


def _constant(graph: Graph, name: str) -> np.ndarray:
    value = graph.constant(name)
    assert value is not None
    return value


def _relu_pair(
    a: model.Model, rng: np.random.Generator, *, op: str = ""
) -> tuple[Graph, tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]]:
    """Choose a layer, the Relu behind it and the layer behind that, in the fused float graph."""
    for name in ("clean", "fuse"):
        step = passes.get(name)
        a = step.run(a, step.options(), passes.Context())
    graph = Graph(a)
    found = []
    for node in graph.nodes:
        relu = graph.only_reader(node.output[0])
        behind = graph.only_reader(relu.output[0]) if relu is not None and relu.op_type == "Relu" else None
        if relu is None or behind is None or op not in ("", node.op_type):
            continue
        same = node.op_type in ("Conv", "Gemm") and behind.op_type == node.op_type
        if same and _group(node) == 1 == _group(behind):
            found.append((node, relu, behind))
    return graph, pick(found, rng)


def thin_calibration(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """Two rows calibrated."""
    few = rows.take(np.sort(rng.choice(rows.rows, 2, replace=False)))
    return Planted(a, quantized(a, few, method="minmax"), ("too little calibration data",), ())


def preprocessing(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """Calibration rows had another mean and scale."""
    factor, shift = pick([(1 / 255, 0.0), (0.25, 0.5), (60.0, 120.0), (3.0, -1.0)], rng)
    arrays = {n: (v * factor + shift).astype(v.dtype) for n, v in rows.arrays.items()}
    wrong = data.from_arrays(arrays, a.inputs, source=Path(rows.source))
    return Planted(a, quantized(a, wrong), ("preprocessing mismatch",), ())
