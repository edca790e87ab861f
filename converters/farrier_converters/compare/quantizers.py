"""Read back what a quantizer wrote: every QuantizeLinear and DequantizeLinear of a graph, whoever made it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ..graph.compact.loaded import loaded
from ..graph.edit import Graph, attribute, standard

LIMITS = {np.dtype(np.uint8): (0, 255), np.dtype(np.int8): (-128, 127), np.dtype(np.uint16): (0, 65535)}
LIMITS |= {np.dtype(np.int16): (-32768, 32767), np.dtype(np.int32): (-(2**31), 2**31 - 1)}


@dataclass(frozen=True)
class ActivationQuantizer:
    """A float tensor `source`, its `integers`, and the float tensors (`results`) that are made of them again.

    Scales and zero points are one-element arrays, or one per index of `axis`; those of the way back are kept apart,
    since they should be, and may not be, the same. `limits`: the smallest and largest integer.
    """

    source: str
    integers: str
    results: tuple[str, ...]
    scale: np.ndarray
    zero_point: np.ndarray
    back_scale: np.ndarray
    back_zero_point: np.ndarray
    limits: tuple[int, int]
    key: tuple[str, str]  # names of scale and zero point, equal where they are shared

    @property
    def extent(self) -> tuple[float, float]:
        """The real numbers that the outermost integers stand for, over all channels."""
        scale, zero = self.scale.astype(np.float64), self.zero_point.astype(np.float64)
        return float(((self.limits[0] - zero) * scale).min()), float(((self.limits[1] - zero) * scale).max())

    def same_scale(self, other: ActivationQuantizer) -> bool:
        """Whether both give the same integers to the same numbers."""
        return np.array_equal(self.scale, other.scale) and np.array_equal(self.zero_point, other.zero_point)

    @property
    def consistent(self) -> bool:
        """Whether the way back has the scale and zero point of the way there."""
        return bool(
            np.allclose(self.scale, self.back_scale, rtol=1e-6)
            and np.all(self.zero_point == self.back_zero_point)
        )


@dataclass(frozen=True)
class ConstantQuantizer:
    """A stored constant: its integers, scales along `axis` (None: one for all), and what they stand for."""

    name: str  # of the stored tensor
    result: str
    integers: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None

    @property
    def values(self) -> np.ndarray:
        """The real numbers, float32."""
        shape = [-1 if axis == self.axis else 1 for axis in range(self.integers.ndim)]
        scale = self.scale.reshape(shape) if self.axis is not None else self.scale.reshape(())
        zero = self.zero_point.reshape(shape) if self.axis is not None else self.zero_point.reshape(())
        return ((self.integers.astype(np.float64) - zero.astype(np.float64)) * scale).astype(np.float32)


@dataclass(frozen=True)
class Quantizers:
    """All of a graph: activations by their float source, constants by the tensor that stands for them."""

    activations: dict[str, ActivationQuantizer]
    constants: dict[str, ConstantQuantizer]

    @property
    def signed(self) -> bool:
        """Whether most activations are signed: the file is made for other processors than x86."""
        lows = [quantizer.limits[0] for quantizer in self.activations.values()]
        return 2 * sum(low < 0 for low in lows) > len(lows)

    def of_result(self, name: str) -> ActivationQuantizer | None:
        """Return the quantizer that made this dequantized tensor."""
        return next((q for q in self.activations.values() if name in q.results), None)


def find(graph: Graph) -> Quantizers:
    """Return what is quantized in a graph; blockwise scales (more than one axis) are not among it."""
    constants: dict[str, ConstantQuantizer] = {}
    activations: dict[str, ActivationQuantizer] = {}
    for node in graph.nodes:
        if standard(node, "DequantizeLinear"):
            constant = _constant(graph, node)
            if constant is not None:
                constants[constant.result] = constant
        elif standard(node, "QuantizeLinear") and graph.constant(node.input[0]) is None:
            found = _activation(graph, node)
            if found is not None:
                activations[found.source] = found
    return Quantizers(activations, constants)


def _parameters(graph: Graph, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray] | None:
    scale = loaded(graph, node.input[1])
    if scale is None or scale.ndim > 1:
        return None
    named = len(node.input) > 2 and bool(node.input[2])
    zero = graph.constant(node.input[2]) if named else np.zeros(scale.shape, np.uint8)
    if zero is None or zero.dtype not in LIMITS or attribute(node, "block_size", 0):
        return None
    return scale.astype(np.float32), zero


def _activation(graph: Graph, node: onnx.NodeProto) -> ActivationQuantizer | None:
    readers = [n for n in graph.readers.get(node.output[0], []) if standard(n, "DequantizeLinear")]
    readers.sort(key=lambda n: attribute(n, "axis") is not None)  # one scale for all comes first
    there = _parameters(graph, node)
    back = _parameters(graph, readers[0]) if readers else there
    if there is None or back is None:
        return None
    return ActivationQuantizer(
        source=node.input[0],
        integers=node.output[0],
        results=tuple(n.output[0] for n in readers),
        scale=there[0].reshape(-1),
        zero_point=there[1].reshape(-1),
        back_scale=back[0].reshape(-1),
        back_zero_point=back[1].reshape(-1),
        limits=LIMITS[there[1].dtype],
        key=(node.input[1], node.input[2] if len(node.input) > 2 else ""),
    )


def _constant(graph: Graph, node: onnx.NodeProto) -> ConstantQuantizer | None:
    found = _parameters(graph, node)
    if found is None:
        return None
    scale, zero = found
    name = node.input[0]
    integers = loaded(graph, name)
    if integers is None:
        integers, name = _quantized_here(graph, node)
    if integers is None or integers.dtype not in LIMITS:
        return None
    axis = attribute(node, "axis", 1) % max(integers.ndim, 1) if scale.size > 1 else None
    if axis is not None and integers.ndim and scale.size != integers.shape[axis]:
        return None
    return ConstantQuantizer(name, node.output[0], integers, scale.reshape(-1), zero.reshape(-1), axis)


def _quantized_here(graph: Graph, node: onnx.NodeProto) -> tuple[np.ndarray | None, str]:
    """Return the integers of a float constant that the graph itself quantizes, and the constant's name."""
    maker = graph.producer.get(node.input[0])
    if maker is None or not standard(maker, "QuantizeLinear"):
        return None, ""
    value, found = graph.constant(maker.input[0]), _parameters(graph, maker)
    if value is None or found is None:
        return None, ""
    scale, zero = found
    shape = [1] * value.ndim
    if scale.size > 1:
        shape[attribute(maker, "axis", 1) % value.ndim] = -1
    low, high = LIMITS[zero.dtype]
    scaled = np.rint(value / scale.reshape(shape or ())) + zero.reshape(shape or ()).astype(np.float64)
    return np.clip(scaled, low, high).astype(zero.dtype), maker.input[0]
