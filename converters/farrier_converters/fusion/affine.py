"""Scales and shifts per channel, and the layers whose weights can take them in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..graph.edit import attribute, standard
from .site import Site, copy

LAYERS = ("Conv", "ConvTranspose", "Gemm")
ELEMENTWISE = ("Mul", "Div", "Add", "Sub")
SCALE_LIMIT = 1e6  # of a folded factor; beyond it (a variance near zero) float32 weights lose their digits


@dataclass(frozen=True)
class Affine:
    """x * scale + shift along a tensor's axis of channels; float64."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Layer:
    """A convolution or Gemm with constant float32 weights, and its bias (zeros where it has none)."""

    node: onnx.NodeProto
    weight: np.ndarray
    bias: np.ndarray  # float64 [channels]

    @property
    def channels(self) -> int:
        """The number of channels it makes."""
        return len(self.bias)

    @property
    def rank(self) -> int:
        """The number of dimensions of its input and its result."""
        return 2 if self.node.op_type == "Gemm" else self.weight.ndim

    @property
    def inputs(self) -> int | None:
        """The number of channels it reads; None where inputs cannot be scaled through its weights."""
        if self.node.op_type == "Gemm":
            transposed = attribute(self.node, "transA", 0)
            return None if transposed else self.weight.shape[1 - _output_axis(self.node)]
        groups = attribute(self.node, "group", 1)
        return self.weight.shape[1] * groups if self.node.op_type == "Conv" else None

    @property
    def pads(self) -> bool:
        """Whether it reads beyond the edges of its input."""
        automatic = attribute(self.node, "auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
        return automatic or any(attribute(self.node, "pads", ()))

    def after(self, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and bias that apply a scale and a shift to the result."""
        if self.node.op_type == "ConvTranspose":
            groups = attribute(self.node, "group", 1)
            rows = np.repeat(affine.scale.reshape(groups, -1), self.weight.shape[0] // groups, axis=0)
            factors = rows.reshape(*self.weight.shape[:2], *(1,) * (self.weight.ndim - 2))
        else:
            factors = _along(affine.scale, _output_axis(self.node), self.weight.ndim)
        return self.weight * factors, self.bias * affine.scale + affine.shift

    def before(self, affine: Affine) -> tuple[np.ndarray, np.ndarray]:
        """Return weights and bias that apply a scale and a shift to the input; nothing may be padded for a shift."""
        scale, shift = (self._per_input(values) for values in (affine.scale, affine.shift))
        summed = tuple(axis for axis in range(self.weight.ndim) if axis != _output_axis(self.node))
        return self.weight * scale, self.bias + (self.weight * shift).sum(axis=summed)

    def _per_input(self, values: np.ndarray) -> np.ndarray:
        """Lay one value per input channel along the weights; each group of a convolution has channels of its own."""
        if self.node.op_type == "Gemm":
            return _along(values, 1 - _output_axis(self.node), 2)
        groups = attribute(self.node, "group", 1)
        rows = np.repeat(values.reshape(groups, -1), self.weight.shape[0] // groups, axis=0)
        return rows.reshape(*self.weight.shape[:2], *(1,) * (self.weight.ndim - 2))


def layer(site: Site, node: onnx.NodeProto) -> Layer | None:
    """Return a node as a layer, None for anything else."""
    weight = site.constant(node.input[1]) if standard(node, *LAYERS) else None
    channels = None if weight is None or weight.dtype != np.float32 else _channels(node, weight)
    if weight is None or channels is None:
        return None
    if len(node.input) < 3 or not node.input[2]:
        return Layer(node, weight, np.zeros(channels))
    value = site.constant(node.input[2])
    if value is None or value.size not in (1, channels) or value.shape[-1:] not in ((), (1,), (channels,)):
        return None
    return Layer(node, weight, np.broadcast_to(value.reshape(-1).astype(np.float64), (channels,)))


def with_weights(site: Site, node: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray) -> onnx.NodeProto:
    """Return a copy of a layer's node with other weights."""
    made = copy(node)
    made.input[:] = [
        node.input[0],
        site.graph.add_constant(f"{node.output[0]}_weight", weight.astype(np.float32)),
        site.graph.add_constant(f"{node.output[0]}_bias", bias.astype(np.float32)),
    ]
    return made


def affine_of(site: Site, node: onnx.NodeProto, source: str, *, channels: int, rank: int) -> Affine | None:
    """Return the scale and shift where `node` computes source * scale + shift per channel (axis 1), else None."""
    if standard(node, "BatchNormalization"):
        return _of_norm(site, node, source)
    if not standard(node, *ELEMENTWISE):
        return None
    position = list(node.input).index(source)
    constant = site.constant(node.input[1 - position])
    if constant is None or constant.dtype != np.float32 or (position and node.op_type in ("Sub", "Div")):
        return None
    value = _per_channel(constant.astype(np.float64), channels, rank)
    if value is None or not np.isfinite(value).all():
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op_type == "Div":
        return Affine(1 / value, zero) if (np.abs(value) > 1 / SCALE_LIMIT).all() else None
    if node.op_type == "Mul":
        return Affine(value, zero) if (np.abs(value) < SCALE_LIMIT).all() else None
    return Affine(one, -value if node.op_type == "Sub" else value)


def _of_norm(site: Site, norm: onnx.NodeProto, source: str) -> Affine | None:
    values = [site.constant(name) for name in norm.input[1:5]]
    trains = attribute(norm, "training_mode", 0) or any(norm.output[1:])
    old_training = site.opset < 7 and not attribute(norm, "is_test", 0)
    whole = attribute(norm, "spatial", 1) == 0
    if norm.input[0] != source or trains or old_training or whole:
        return None
    gamma, beta, mean, variance = (None if v is None else v.astype(np.float64) for v in values)
    if gamma is None or beta is None or mean is None or variance is None:
        return None
    scale = gamma / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    if not np.isfinite(scale).all() or (np.abs(scale) > SCALE_LIMIT).any():
        return None
    return Affine(scale, beta - mean * scale)


def _output_axis(node: onnx.NodeProto) -> int:
    """Return the weights' axis of output channels."""
    return 0 if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)) else 1


def _along(values: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return values.reshape([-1 if a == axis else 1 for a in range(rank)])


def _channels(node: onnx.NodeProto, weight: np.ndarray) -> int | None:
    if node.op_type == "Gemm":
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        return weight.shape[_output_axis(node)] if plain else None
    if node.op_type == "ConvTranspose":
        return weight.shape[1] * attribute(node, "group", 1)
    return weight.shape[0]


def _per_channel(value: np.ndarray, channels: int, rank: int) -> np.ndarray | None:
    """Return one number per channel (axis 1 of `rank`) where broadcasting means just that."""
    if value.size == 1 and value.ndim <= rank:
        return np.full(channels, value.reshape(()))
    wanted = (1,) * (value.ndim - rank + 1) + (channels,) + (1,) * (rank - 2)
    fits = value.shape in (wanted, (channels, *(1,) * (rank - 2)), (1, channels, *(1,) * (rank - 2)))
    return value.reshape(channels) if fits else None
