"""Faults to plant into quantized models: each one edits scales, zero points, weights or calibration rows, no more.

Nothing here knows how faults are found. A planter takes a float model, calibration rows, a random generator and returns
the float model to compare with, the faulty quantized one, and what was planted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from farrier_contracts.targets import Arithmetic
from farrier_converters import data, model, passes
from farrier_converters.graph.edit import Graph

U8 = Arithmetic("u8")


@dataclass(frozen=True)
class Planted:
    """The models, and the truth: the causes that name the fault, and the layers (node or tensor) that hold it."""

    a: model.Model
    b: model.Model
    causes: tuple[str, ...]
    layers: tuple[str, ...]


Planter = Callable[[model.Model, data.Dataset, np.random.Generator], Planted]


def quantized(
    source: model.Model, rows: data.Dataset, arithmetic: Arithmetic = U8, **options: object
) -> model.Model:
    """Return a sound INT8 model."""
    size = rows.fixed_batch or 8
    context = passes.Context(arithmetic, lambda: (feeds for feeds, _ in rows.batches(size)))
    for name in ("clean", "fuse", "int8"):
        step = passes.get(name)
        source = step.run(source, step.options(**(options if name == "int8" else {})), context)
    return source


class Editor:
    """A quantized model whose quantizers can be bent."""

    def __init__(self, quantized_model: model.Model) -> None:
        self.graph = Graph(quantized_model)

    def quantizers(self) -> list[onnx.NodeProto]:
        """Activation quantizers between two layers, inputs of the model left out."""
        inputs = {value.name for value in self.graph.inputs}
        return [
            n
            for n in self.graph.nodes
            if n.op_type == "QuantizeLinear"
            and n.input[0] not in inputs
            and self.graph.producer[n.input[0]].op_type in ("Conv", "Gemm", "Relu", "Add")
        ]

    def linear(self, least: int = 2) -> list[onnx.NodeProto]:
        """Layers whose stored weights have at least so many values per channel."""
        found = []
        for node in self.graph.nodes:
            weight = self._stored(node) if node.op_type in ("Conv", "Gemm") else None
            if weight is not None and weight.size / weight.shape[0] >= least:
                found.append(node)
        return found

    def layer_names(self, quantizer: onnx.NodeProto) -> tuple[str, ...]:
        """What the layer before an activation quantizer may be called: its node, the tensors around."""
        maker = self.graph.producer[quantizer.input[0]]
        results = [n.output[0] for n in self._back(quantizer)]
        return (maker.name, maker.output[0], *results)

    def _back(self, quantizer: onnx.NodeProto) -> list[onnx.NodeProto]:
        return [n for n in self.graph.readers[quantizer.output[0]] if n.op_type == "DequantizeLinear"]

    def set_range(self, quantizer: onnx.NodeProto, *, times: float = 1.0, shift: int = 0) -> None:
        """Multiply a range's scale, keeping zero, or shift its zero point: on both ways."""
        scale = self.graph.constant(quantizer.input[1])
        zero = self.graph.constant(quantizer.input[2])
        assert scale is not None
        assert zero is not None
        moved = np.clip(zero.astype(np.int64) + shift, np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max)
        names = (
            self.graph.add_constant("bent_scale", (scale * np.float32(times)).astype(np.float32)),
            self.graph.add_constant("bent_zero_point", moved.astype(zero.dtype)),
        )
        for node in (quantizer, *self._back(quantizer)):
            node.input[1], node.input[2] = names

    def weights(self, node: onnx.NodeProto, position: int = 1) -> onnx.NodeProto:
        """The DequantizeLinear of a layer's weights (1) or bias (2)."""
        return self.graph.producer[node.input[position]]

    def _stored(self, node: onnx.NodeProto) -> np.ndarray | None:
        maker = self.graph.producer.get(node.input[1])
        return None if maker is None else self.graph.constant(maker.input[0])

    def share_scale(self, node: onnx.NodeProto) -> None:
        """Store a layer's weights anew with one scale for all channels, and its bias to match."""
        weights, old = self.weights(node), self.graph.constant(self.weights(node).input[1])
        stored = self._stored(node)
        assert stored is not None
        assert old is not None
        axis = next((f.i for f in weights.attribute if f.name == "axis"), 1) % stored.ndim
        old = np.broadcast_to(old, stored.shape[axis])
        values = stored * old.reshape([-1 if i == axis else 1 for i in range(stored.ndim)])
        scale = np.float32(np.abs(values).max() / 127)
        self.replace(weights, 0, np.rint(values / scale).astype(np.int8))
        self.replace(weights, 1, np.full(old.shape, scale, np.float32))
        if len(node.input) > 2 and node.input[2]:
            bias = self.weights(node, 2)
            stored_bias, bias_scale = (self.graph.constant(name) for name in bias.input[:2])
            assert stored_bias is not None
            assert bias_scale is not None
            wanted = bias_scale / old * scale
            self.replace(bias, 0, np.rint(stored_bias * (bias_scale / wanted)).astype(np.int32))
            self.replace(bias, 1, wanted.astype(np.float32))

    def replace(self, node: onnx.NodeProto, position: int, value: np.ndarray) -> None:
        """Give a node another constant."""
        node.input[position] = self.graph.add_constant("bent", value)

    def build(self) -> model.Model:
        """Return the bent model."""
        return self.graph.build()


def _pick(items: list, rng: np.random.Generator):
    return items[int(rng.integers(len(items)))]


def saturation(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's range is a fraction of what it should be."""
    editor = Editor(quantized(a, rows))
    quantizer = _pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    editor.set_range(quantizer, times=float(rng.uniform(0.05, 0.25)))
    return Planted(a, editor.build(), ("saturation",), layers)


def dead_range(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's range is many times what it should be."""
    editor = Editor(quantized(a, rows))
    quantizer = _pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    editor.set_range(quantizer, times=float(np.exp(rng.uniform(np.log(15), np.log(60)))))
    return Planted(a, editor.build(), ("dead range",), layers)


def zero_point(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """One activation's zero point is off."""
    editor = Editor(quantized(a, rows))
    quantizer = _pick(editor.quantizers(), rng)
    layers = editor.layer_names(quantizer)
    zero = editor.graph.constant(quantizer.input[2])
    assert zero is not None
    shift = int(rng.integers(60, 120))
    editor.set_range(quantizer, shift=shift if int(zero) < 128 else -shift)
    return Planted(a, editor.build(), ("damaged zero point",), layers)


def weight_scale(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """The scale of a layer's weights is wrong in a part of its channels."""
    editor = Editor(quantized(a, rows))
    node = _pick(editor.linear(), rng)
    weights = editor.weights(node)
    scale = editor.graph.constant(weights.input[1])
    assert scale is not None
    factors = np.where(rng.random(scale.shape) < 0.3, rng.uniform(2, 4), 1.0)
    factors.flat[int(rng.integers(factors.size))] = 3.0
    editor.replace(weights, 1, (scale * factors).astype(np.float32))
    return Planted(a, editor.build(), ("damaged scale",), _names(node))


def bias(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """A layer's bias has another scale than its accumulator."""
    editor = Editor(quantized(a, rows))
    biased = [n for n in editor.linear() if len(n.input) > 2 and _large_bias(editor, n)]
    node = _pick(biased, rng)
    stored = editor.weights(node, 2)
    scale = editor.graph.constant(stored.input[1])
    assert scale is not None
    editor.replace(stored, 1, (scale * rng.uniform(4, 10)).astype(np.float32))
    return Planted(a, editor.build(), ("damaged bias",), _names(node))


def _names(node: onnx.NodeProto) -> tuple[str, ...]:
    return node.name, node.output[0], node.output[0].removesuffix("_float")


def _large_bias(editor: Editor, node: onnx.NodeProto) -> bool:
    stored = editor.graph.producer.get(node.input[2])
    value = None if stored is None else editor.graph.constant(stored.input[0])
    return value is not None and bool(np.abs(value).max() > 0)


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
    return graph, _pick(found, rng)


def thin_calibration(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """Two rows calibrated."""
    few = rows.take(np.sort(rng.choice(rows.rows, 2, replace=False)))
    return Planted(a, quantized(a, few, method="minmax"), ("too little calibration data",), ())


def preprocessing(a: model.Model, rows: data.Dataset, rng: np.random.Generator) -> Planted:
    """Calibration rows had another mean and scale."""
    factor, shift = _pick([(1 / 255, 0.0), (0.25, 0.5), (60.0, 120.0), (3.0, -1.0)], rng)
    arrays = {n: (v * factor + shift).astype(v.dtype) for n, v in rows.arrays.items()}
    wrong = data.from_arrays(arrays, a.inputs, source=Path(rows.source))
    return Planted(a, quantized(a, wrong), ("preprocessing mismatch",), ())


FAULTS: dict[str, Planter] = {
    "saturation": saturation,
    "dead range": dead_range,
    "zero point": zero_point,
    "weight scale": weight_scale,
    "bias": bias,
    "weight outlier": weight_outlier,
    "activation outlier": activation_outlier,
    "clash": clash,
    "thin calibration": thin_calibration,
    "preprocessing": preprocessing,
}
