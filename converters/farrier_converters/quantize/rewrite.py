"""Write a placement and its ranges into the graph as QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.targets import INPUTS, Arithmetic

from ..graph.bounds import bounds
from ..graph.compact.names import BEFORE
from ..graph.edit import Graph, attribute, replace, standard
from ..model import Model
from . import rules, scales
from .fences import fence
from .placement import Placement
from .reasons import REASON_KEY, forget, mark_integer, set_reason
from .scales import Affine, Range

__all__ = ["REASON_KEY", "Known", "QdqWriter", "Widths", "set_reason"]


NARROW_BITS = 4  # of weights: the file stores them in half a byte, see `graph.compact.fours`


@dataclass(frozen=True)
class Widths:
    """What the target's arithmetic does not state: bits of activations, and how weights are ranged."""

    activation_bits: int = 8
    weight_method: str = "auto"  # see `scales.weights`
    narrow: frozenset[str] = frozenset()  # nodes, by name or first output, whose weights have `NARROW_BITS`
    wide: frozenset[str] = (
        frozenset()
    )  # activations that keep 8 bits, and weights that keep `wide_weight_bits`
    wide_weight_bits: int = 8

    def activation(self, names: Iterable[str]) -> int:
        """Return the bits of tensors that share one scale."""
        return 8 if self.wide.intersection(names) else self.activation_bits


@dataclass(frozen=True)
class Known:
    """Parameters that were learned: of a tensor, and the scales of weights by the name of their initializer."""

    affines: Mapping[str, Affine] = field(default_factory=dict)
    weights: Mapping[str, np.ndarray] = field(default_factory=dict)


class QdqWriter:
    """Edits one graph; `write` may be called once."""

    def __init__(
        self,
        graph: Graph,
        plan: Placement,
        arithmetic: Arithmetic,
        widths: Widths = Widths(),
        known: Known = Known(),
    ) -> None:
        self.graph = graph
        self.plan = plan
        self.arithmetic = arithmetic
        self.widths = widths
        self.known = known
        self.parameters: dict[tuple[bytes, int], tuple[str, str]] = {}
        self.affines: dict[str, Affine] = {}
        self.limits: dict[int, list[str]] = {}  # bits -> the constants that integers of so few are clipped at
        self.integers: dict[str, str] = {}  # dequantized tensor -> the integers that it is made of

    def write(self, ranges: dict[str, Range]) -> Model:
        """Return the quantized model. `ranges` covers every point of the placement that has no fixed bounds."""
        self.set_ranges(ranges)
        for node in self.graph.nodes:
            if id(node) in self.plan.reasons:
                set_reason(node, self.plan.reasons[id(node)])
            elif id(node) in self.plan.integer | self.plan.absorbed:
                forget(node)  # an earlier pass may have left it in float
                if self.arithmetic.quantizers == INPUTS:
                    mark_integer(node)
        for node in [n for n in self.graph.nodes if id(n) in self.plan.integer]:
            if standard(node, *rules.WEIGHTED):
                self._quantize_weights(node)
            elif id(node) in self.plan.constants:
                self._quantize_constant(node, self.plan.constants[id(node)])
        for name in self.plan.read:
            self._wrap_read(name)
        for name in self.plan.made:
            self._drop_activation(name)
            self._wrap_made(name)
        fence(self.graph)
        return self.graph.build()

    def affine(self, name: str) -> Affine:
        """Return scale and zero point of a tensor that has a quantizer."""
        return self.affines[self.plan.root(name)]

    def set_ranges(self, ranges: dict[str, Range]) -> None:
        """Find the scale of every point; tensors that share one get the union of their ranges."""
        members: dict[str, list[str]] = {}
        for name in self.plan.points:
            members.setdefault(self.plan.root(name), []).append(name)
        for root, names in members.items():
            learned = next((self.known.affines[name] for name in names if name in self.known.affines), None)
            bits = self.widths.activation(names)
            self.affines[root] = learned or self._affine(self._extent(names, ranges, bits), bits)

    def _extent(self, names: list[str], ranges: dict[str, Range], bits: int) -> Range:
        """Unite what tensors of one scale take.

        Bounds are stated for 256 levels; with fewer, the top one is a step below the true bound as well.
        """
        extent: Range | None = None
        for name in names:
            low, high = self.plan.bounds.get(name, (0.0, 0.0))
            levels = 2**bits
            bounded = Range(low, high * 256 / 255 * (levels - 1) / levels)
            found = bounded if name in self.plan.bounds else ranges[name]
            extent = found if extent is None else extent.union(found)
        return extent or Range(0.0, 0.0)

    def _affine(self, extent: Range, bits: int = 8) -> Affine:
        return scales.activation(
            extent,
            symmetric=self.arithmetic.symmetric_activations,
            bits=bits,
            power_of_two=self.arithmetic.power_of_two_scales,
        )

    def _integers(self, unsigned: np.ndarray | int, affine: Affine) -> np.ndarray:
        values = np.asarray(unsigned, np.int16)
        if self.arithmetic.activations == "u8":
            return values.astype(np.uint8)
        return (values - affine.shift).astype(np.int8)

    def _key(self, affine: Affine) -> tuple[bytes, int]:
        """Return what tells scales apart in the file: equal ones are stored once."""
        return affine.scale.tobytes(), affine.zero_point

    def _parameters(self, affine: Affine) -> tuple[str, str]:
        key = self._key(affine)
        if key not in self.parameters:
            number = len(self.parameters)
            self.parameters[key] = (
                self.graph.add_constant(f"scale_{number}", np.asarray(affine.scale)),
                self.graph.add_constant(f"zero_point_{number}", self._integers(affine.zero_point, affine)),
            )
        return self.parameters[key]

    def _pair(self, source: str, result: str) -> None:
        affine = self.affine(result if result in self.plan.made else source)
        parameters = self._parameters(affine)
        integers = self.graph.fresh(f"{source}_quantized")
        self.graph.add_node("QuantizeLinear", [source, *parameters], integers)
        integers = self.integers[result] = self._saturate(integers, affine.bits)
        self.graph.add_node("DequantizeLinear", [integers, *parameters], result)

    def _saturate(self, integers: str, bits: int) -> str:
        """Clip integers to fewer levels than their type has; an engine saturates at those of the type alone.

        The clip stands behind the quantizer, so that the operator before is still one integer kernel.
        """
        if bits == 8:
            return integers
        if bits not in self.limits:
            whole = Affine(np.float32(1), 0, bits)
            self.limits[bits] = [
                self.graph.add_constant(f"{name}_level", self._integers(value, whole))
                for name, value in (("lowest", 0), ("highest", whole.levels))
            ]
        result = self.graph.fresh(f"{integers}_saturated")
        self.graph.add_node("Clip", [integers, *self.limits[bits]], result)
        return result

    def _wrap_read(self, name: str) -> None:
        """A float tensor: integer readers get it quantized, the others as it is."""
        result = self.graph.fresh(f"{name}_dequantized")
        for node in self.graph.readers[name]:
            if id(node) in self.plan.integer:
                replace(node.input, name, result)
        self._pair(name, result)

    def _wrap_made(self, name: str) -> None:
        """The result of an integer node: every reader gets it quantized, so that the node's kernel is integer."""
        if standard(self.graph.producer[name], "Pad"):
            self._pad_integers(self.graph.producer[name], name)
            return
        source = self.graph.fresh(name + BEFORE)
        replace(self.graph.producer[name].output, name, source)
        self._pair(source, name)

    def _drop_activation(self, name: str) -> None:
        """Remove a Relu or Clip where the quantizer behind it clips at the same bounds.

        ONNX Runtime does that too, but for Add only after it has given up on an integer kernel.
        """
        node = self.graph.producer[name]
        before = self.graph.producer.get(node.input[0]) if node.input else None
        if not standard(node, *rules.ACTIVATIONS) or before is None or not self._clips_alike(node, name):
            return
        replace(before.output, node.input[0], name)
        self.graph.remove([node])
        self.graph.producer[name] = before

    def _clips_alike(self, node: onnx.NodeProto, name: str) -> bool:
        if id(node) not in self.plan.absorbed:
            return False
        affine = self.affine(name)
        low, high = (-affine.zero_point * affine.scale, (affine.levels - affine.zero_point) * affine.scale)
        ends = bounds(self.graph, node)
        return (
            ends is not None and (ends[0] is None or low >= ends[0]) and (ends[1] is None or high <= ends[1])
        )

    def _pad_integers(self, pad: onnx.NodeProto, name: str) -> None:
        """Let Pad work on the integers themselves: ONNX Runtime would pad in float between two conversions."""
        integers = self.graph.fresh(f"{name}_quantized")
        affine = self.affine(name)
        parameters = self._parameters(affine)
        fill = self.graph.constant(pad.input[2]) if len(pad.input) > 2 and pad.input[2] else np.zeros(1)
        filled = parameters[1]
        if fill is not None and fill.any():
            integer = self._integers(scales.quantize(fill.reshape(()), affine), affine)
            filled = self.graph.add_constant(f"{name}_fill", integer)
        rest = [*pad.input[1:2], filled, *pad.input[3:]]
        source = self.integers[pad.input[0]]
        del pad.input[:]
        pad.input.extend([source, *rest])
        replace(pad.output, name, integers)
        self.integers[name] = integers
        self.graph.add_node("DequantizeLinear", [integers, *parameters], name)

    def _quantize_constant(self, node: onnx.NodeProto, name: str) -> None:
        value = self._finite(name)
        extent = Range(float(value.min(initial=0)), float(value.max(initial=0)))
        affine = self._affine(extent, self.widths.activation([name]))
        stored = self.graph.add_constant(
            f"{name}_quantized", self._integers(scales.quantize(value, affine), affine)
        )
        self._dequantize(node, name, [stored, *self._parameters(affine)])

    def _quantize_weights(self, node: onnx.NodeProto) -> None:
        if self.graph.constant(node.input[1]) is None:
            return  # MatMul of two activations
        integers, scale, axis = self._weights(node)
        bias = self._bias(node)
        self._store_weights(node, integers, scale, axis=axis)
        if bias is not None:
            input_scale = self.affine(node.input[0]).scale
            self._quantize_bias(node, bias, input_scale=input_scale, weight_scale=scale)

    def rounded(self, node: onnx.NodeProto) -> np.ndarray:
        """Return the constant weights of a node as its integers will stand for them; float32."""
        integers, scale, axis = self._weights(node)
        shape = [-1 if a == axis else 1 for a in range(integers.ndim)]
        return (integers * (scale.reshape(shape) if scale.ndim else scale)).astype(np.float32)

    def _weights(self, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray, int | None]:
        """Return integers, scale, and the axis along which scales differ."""
        single = not self.arithmetic.per_channel or id(node) in self.plan.single
        axis = None if single else _channel_axis(node)
        bias = self._bias(node)
        input_scale = self.affine(node.input[0]).scale
        floor = np.zeros(()) if bias is None else scales.bias_floor(bias, input_scale=input_scale)
        integers, scale = scales.weights(
            self._finite(node.input[1]),
            bits=self._weight_bits(node),
            axis=axis,
            floor=floor if axis is not None else floor.max(),
            method=self.widths.weight_method,
            power_of_two=self.arithmetic.power_of_two_scales,
            known=self.known.weights.get(node.input[1]),
        )
        return integers, scale, axis

    def _store_weights(
        self, node: onnx.NodeProto, integers: np.ndarray, scale: np.ndarray, *, axis: int | None
    ) -> None:
        name = node.input[1]
        zero_point = self.graph.add_constant(f"{name}_zero_point", np.zeros(scale.shape, np.int8))
        stored = self.graph.add_constant(f"{name}_quantized", integers)
        inputs = [stored, self.graph.add_constant(f"{name}_scale", scale), zero_point]
        self._dequantize(node, name, inputs, axis=axis)

    def _weight_bits(self, node: onnx.NodeProto) -> int:
        if node.input[1] in self.widths.wide:
            return self.widths.wide_weight_bits
        narrow = self.widths.narrow.intersection((node.name, *node.output))
        return min(NARROW_BITS, self.arithmetic.weight_bits) if narrow else self.arithmetic.weight_bits

    def _bias(self, node: onnx.NodeProto) -> np.ndarray | None:
        if node.op_type == "MatMul" or len(node.input) < 3 or not node.input[2]:
            return None
        weight = self.graph.constant(node.input[1])
        assert weight is not None
        return np.broadcast_to(self._finite(node.input[2]).reshape(-1), (weight.shape[_channel_axis(node)],))

    def _quantize_bias(
        self, node: onnx.NodeProto, bias: np.ndarray, *, input_scale: np.float32, weight_scale: np.ndarray
    ) -> None:
        integers, scale = scales.bias(bias, input_scale=input_scale, weight_scale=weight_scale)
        per_channel = weight_scale.ndim == 1
        scale = scale if per_channel else scale.reshape(-1)[0]
        name = node.input[2]
        inputs = [
            self.graph.add_constant(f"{name}_quantized", integers),
            self.graph.add_constant(f"{name}_scale", np.asarray(scale)),
            self.graph.add_constant(f"{name}_zero_point", np.zeros(np.shape(scale), np.int32)),
        ]
        self._dequantize(node, name, inputs, axis=0 if per_channel else None)

    def _dequantize(
        self, node: onnx.NodeProto, name: str, inputs: list[str], *, axis: int | None = None
    ) -> None:
        result = self.graph.fresh(f"{name}_dequantized")
        attributes = {} if axis is None else {"axis": axis}
        self.graph.add_node("DequantizeLinear", inputs, result, **attributes)
        replace(node.input, name, result)

    def _finite(self, name: str) -> np.ndarray:
        value = self.graph.constant(name)
        if value is None or not np.isfinite(value).all():
            raise InputError(f"the weights {name!r} hold values that are not finite; the model is damaged")
        return value


def _channel_axis(node: onnx.NodeProto) -> int:
    """Return the axis of the weights along which results are independent."""
    if node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0)):
        return 0
    return 1
