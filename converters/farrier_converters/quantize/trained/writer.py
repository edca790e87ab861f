"""The quantized graph with float weights: the same quantizers at the same places, for training.

Weights pass a QuantizeLinear and DequantizeLinear of their own, biases a Round in steps of input scale * weight scale,
and each scale is an initializer of its own, so that it can be learned. A convolution may keep a batch norm: its
weights are then those before folding. As every channel has its own scale, folding the norm into the weights later
leaves their integers as they are and multiplies the scale: no rounding changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_contracts.targets import Arithmetic

from ...graph.edit import Graph, replace
from ...model import Model
from ..placement import Placement
from ..rewrite import QdqWriter, Widths
from ..scales import Affine, Range

EPSILON = 1e-5  # of the batch norms


@dataclass(frozen=True)
class Norm:
    """A batch norm behind a convolution: the convolution's weights and bias, and its own four initializers.

    It starts as what folding took out: scaling by `factor` per channel, shifting by the bias.
    """

    weight: str
    bias: str
    gamma: str
    beta: str
    mean: str
    variance: str
    factor: np.ndarray


@dataclass
class Learnable:
    """Where the trainable graph keeps what is learned; every string is an initializer."""

    activations: dict[str, tuple[str, Affine]] = field(default_factory=dict)  # tensor -> its scale, the start
    weights: dict[str, str] = field(default_factory=dict)  # weights -> their scale
    biases: list[str] = field(default_factory=list)
    norms: list[Norm] = field(default_factory=list)


class TrainableWriter(QdqWriter):
    """Writes the trainable form; `factors` gives, by weights, what a batch norm scaled each channel by."""

    def __init__(
        self,
        graph: Graph,
        plan: Placement,
        arithmetic: Arithmetic,
        widths: Widths,
        factors: Mapping[str, np.ndarray],
    ) -> None:
        super().__init__(graph, plan, arithmetic, widths)
        self.factors = factors
        self.learnable = Learnable()
        self._kept: list[Affine] = []  # as long as they live, their `id` is theirs alone
        self._dequantized: dict[str, str] = {}

    def write(self, ranges: dict[str, Range]) -> Model:
        """Return the trainable model; `learnable` then says where its parameters are."""
        model = super().write(ranges)
        for name in self.plan.points:
            affine = self.affine(name)
            found = self.parameters.get(self._key(affine))
            if found is not None:
                self.learnable.activations[name] = (found[0], affine)
        return model

    def _key(self, affine: Affine) -> tuple[bytes, int]:
        self._kept.append(affine)
        return str(id(affine)).encode(), affine.zero_point

    def _store_weights(
        self, node: onnx.NodeProto, integers: np.ndarray, scale: np.ndarray, *, axis: int | None
    ) -> None:
        del integers
        name = node.input[1]
        factor = self.factors.get(name)
        weight = self._finite(name)
        if factor is not None:
            weight = weight / factor.reshape(-1, *(1,) * (weight.ndim - 1))
            scale = (scale / np.abs(factor)).astype(np.float32)
            self.graph.initializers[name] = numpy_helper.from_array(weight.astype(np.float32), name)
        if name not in self._dequantized:
            self._dequantized[name] = self._fake_weights(name, scale, self._weight_bits(node), axis)
        replace(node.input, name, self._dequantized[name])
        if factor is not None:
            self._normalize(node, name, factor)

    def _fake_weights(self, name: str, scale: np.ndarray, bits: int, axis: int | None) -> str:
        limit = 2 ** (bits - 1) - 1
        parameters = [
            self.graph.add_constant(f"{name}_scale", scale),
            self.graph.add_constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8)),
        ]
        bounds = [self.graph.add_constant(f"{name}_limit", np.array(b, np.int8)) for b in (-limit, limit)]
        integers, clipped, result = (
            self.graph.fresh(f"{name}_{suffix}") for suffix in ("quantized", "clipped", "dequantized")
        )
        attributes = {} if axis is None else {"axis": axis}
        self.graph.add_node("QuantizeLinear", [name, *parameters], integers, **attributes)
        self.graph.add_node("Clip", [integers, *bounds], clipped)
        self.graph.add_node("DequantizeLinear", [clipped, *parameters], result, **attributes)
        self.learnable.weights[name] = parameters[0]
        return result

    def _normalize(self, node: onnx.NodeProto, weight: str, factor: np.ndarray) -> None:
        """Put a batch norm behind a convolution, in place of its bias."""
        bias = node.input[2]
        shift = np.broadcast_to(self._finite(bias).reshape(-1), factor.shape)
        values = {
            "gamma": factor * np.float32(np.sqrt(1 + EPSILON)),
            "beta": shift,
            "mean": np.zeros_like(factor),
            "variance": np.ones_like(factor),
        }
        names = {
            key: self.graph.add_constant(f"{weight}_{key}", value.astype(np.float32))
            for key, value in values.items()
        }
        del node.input[2]
        result = node.output[0]
        node.output[0] = self.graph.fresh(f"{result}_raw")
        norm = self.graph.add_node(
            "BatchNormalization", [node.output[0], *names.values()], result, epsilon=EPSILON
        )
        self.graph.producer[node.output[0]], self.graph.producer[result] = node, norm
        self.learnable.norms.append(Norm(weight=weight, bias=bias, factor=factor, **names))

    def _quantize_bias(
        self, node: onnx.NodeProto, bias: np.ndarray, *, input_scale: np.float32, weight_scale: np.ndarray
    ) -> None:
        """Round a bias to whole steps of the accumulator, whatever the scales become."""
        del bias, input_scale, weight_scale
        if len(node.input) < 3:
            return  # a batch norm took it
        name = node.input[2]
        weight = next(w for w, dequantized in self._dequantized.items() if dequantized == node.input[1])
        step, ratio, whole, result = (
            self.graph.fresh(f"{name}_{suffix}") for suffix in ("step", "steps", "rounded", "dequantized")
        )
        scale = self._parameters(self.affine(node.input[0]))[0]
        self.graph.add_node("Mul", [scale, self.learnable.weights[weight]], step)
        self.graph.add_node("Div", [name, step], ratio)
        self.graph.add_node("Round", [ratio], whole)
        self.graph.add_node("Mul", [whole, step], result)
        replace(node.input, name, result)
        self.learnable.biases.append(name)
