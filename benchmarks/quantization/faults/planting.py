"""What a planted fault is, and how quantizers are bent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


def pick(items: list, rng: np.random.Generator):
    return items[int(rng.integers(len(items)))]
