"""Run a quantized graph with the integers of another processor.

The graph is read as engines read it: an operator between DequantizeLinear and QuantizeLinear is an integer operator.
Its sum is kept as integers until the quantizer behind it says in which scale to round it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.targets import PAIRS, Arithmetic

from ..graph.edit import Graph, attribute, reads, standard
from ..model import Model
from . import elementwise, linear, rounding
from .floats import NodeRunner, float_conv
from .rounding import Params
from .saturation import Saturation
from .values import Combined, Quantized, Sum

SIGNED_SHIFT = 128
BYTES = (np.dtype(np.uint8), np.dtype(np.int8))


class Emulator:
    """One graph in one arithmetic; `saturation` counts, per operator with weights, over all runs.

    `multiply_adds` counts those of integer operators. Scales that the arithmetic does not have: see `recast`.
    """

    def __init__(self, model: Model, arithmetic: Arithmetic) -> None:
        self.arithmetic = arithmetic
        self.saturation: dict[str, Saturation] = {}
        self.multiply_adds = 0
        self._graph = Graph(model)
        self._nodes = self._graph.ordered()
        self._opsets = list(model.proto.opset_import)
        self._constants = {n: self._graph.constant(n) for n in self._graph.initializers}
        self._needs = [sorted(reads(node)) for node in self._nodes]
        self._quantized = self._behind_quantizers()
        # ONNX Runtime gives a MatMul of two activations u8 on both sides, whose kernel saturates nowhere
        self._made = {
            n.output[0]
            for n in self._nodes
            if standard(n, "DequantizeLinear") and n.input[0] not in self._constants
        }
        self._runners: dict[int, NodeRunner] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name; raises InputError for a node that cannot be computed on this machine."""
        values: dict[str, Any] = {**self._constants, **feeds}
        uses = Counter(name for needs in self._needs for name in needs)
        uses.update(self._graph.outputs)
        for index, node in enumerate(self._nodes):
            results = self._compute(index, node, values)
            for name, result in zip([n for n in node.output if n], results, strict=True):
                values[name] = result
            for name in self._needs[index]:
                uses[name] -= 1
                if not uses[name] and name not in self._constants:
                    values.pop(name, None)
        return {name: _real(values[name]) for name in self._graph.outputs}

    def _behind_quantizers(self) -> set[str]:
        """Return the tensors that only quantizers read, through an activation function or without."""
        found: set[str] = set()
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node, needs in zip(self._nodes, self._needs, strict=True):
            for name in needs:
                readers.setdefault(name, []).append(node)
        for node in reversed(self._nodes):
            for name in node.output:
                using = readers.get(name, [])
                if (
                    using
                    and name not in self._graph.outputs
                    and all(
                        standard(r, "QuantizeLinear")
                        or (standard(r, "Relu", "Clip") and r.input[0] == name and r.output[0] in found)
                        for r in using
                    )
                ):
                    found.add(name)
        return found

    def _compute(self, index: int, node: onnx.NodeProto, values: dict[str, Any]) -> list[Any]:
        if standard(node, "DequantizeLinear"):
            result = self._dequantize(node, values)
        elif standard(node, "QuantizeLinear"):
            result = self._quantize(node, values)
        elif standard(node, "Conv", "Gemm", "MatMul"):
            result = self._linear(node, values)
        elif standard(node, "Relu", "Clip"):
            result = self._clamp(node, values)
        elif standard(node, *elementwise.COMPUTE):
            result = self._combine(index, node, values)
        else:
            result = None
        return [result] if result is not None else self._float(index, node, values)

    def _float(self, index: int, node: onnx.NodeProto, values: Mapping[str, Any]) -> list[np.ndarray]:
        if index not in self._runners:
            initializers = self._graph.initializers
            self._runners[index] = NodeRunner(node, initializers, self._opsets, self._needs[index])
        runner = self._runners[index]
        try:
            return runner(*(_real(values[name]) for name in runner.inputs))
        except KeyError as missing:
            raise InputError(f"the model needs an input {missing}") from None

    def _params(
        self, node: onnx.NodeProto, values: Mapping[str, Any], dtype: np.dtype | None
    ) -> Params | None:
        scale = _real(values[node.input[1]])
        zero = values[node.input[2]] if len(node.input) > 2 and node.input[2] else None
        kind = zero.dtype if zero is not None else dtype
        if attribute(node, "block_size", 0) or scale.dtype != np.float32 or kind is None:
            return None
        zero = np.zeros(scale.shape, kind) if zero is None else zero
        return Params(scale, zero, kind, attribute(node, "axis", 1))

    def _dequantize(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> Quantized | None:
        integers = values[node.input[0]]
        params = self._params(node, values, integers.dtype)
        if params is None or integers.dtype not in (*BYTES, np.dtype(np.int32)):
            return None
        return Quantized(integers, params)

    def _quantize(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> np.ndarray | None:
        default = np.dtype(np.uint8) if not attribute(node, "output_dtype", 0) else None
        params = self._params(node, values, default)
        if params is None or params.dtype not in BYTES:
            return None
        value = values[node.input[0]]
        if isinstance(value, (Sum, Combined)) and params.scale.size == 1:
            return value.quantize(params, self.arithmetic.rounding)
        return rounding.quantize(_real(value), params)

    def _clamp(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> Sum | Combined | None:
        value = values[node.input[0]]
        if not isinstance(value, (Sum, Combined)) or node.output[0] not in self._quantized:
            return None
        if node.op_type == "Relu":
            return value.clamp(0.0, np.inf)
        if len(node.input) == 1:  # before opset 11
            return value.clamp(attribute(node, "min", -np.inf), attribute(node, "max", np.inf))
        bounds = [values[name] if name else None for name in (*node.input[1:], "", "")][:2]
        low, high = (
            default if bound is None else float(bound)
            for bound, default in zip(bounds, (-np.inf, np.inf), strict=True)
        )
        return value.clamp(low, high)

    def _combine(self, index: int, node: onnx.NodeProto, values: Mapping[str, Any]) -> Combined | None:
        inputs = tuple(values[name] for name in node.input)
        if node.output[0] not in self._quantized or not all(_per_tensor(value) for value in inputs):
            return None
        snapshot = {name: values[name] for name in self._needs[index]}
        return Combined(
            inputs,
            elementwise.COMPUTE[node.op_type],
            lambda: self._float(index, node, snapshot)[0],
        )

    def _linear(self, node: onnx.NodeProto, values: Mapping[str, Any]) -> Sum | None:
        given, weights = values[node.input[0]], values[node.input[1]]
        if not (_per_tensor(given) and isinstance(weights, Quantized) and weights.integers.dtype in BYTES):
            return None
        if node.op_type == "Conv":
            if node.output[0] not in self._quantized:
                return None  # between float neighbours engines convolve in float
            sums, axis = self._conv(node, given, weights), 1
        else:
            found = self._matmul(node, given, weights)
            if found is None:
                return None
            sums, axis = found, -1
        scale = weights.params.scale
        if len(node.input) > 2 and node.input[2]:
            sums = _with_bias(sums, values[node.input[2]], given.params.scale * scale, axis)
        return Sum(sums, given.params.scale, scale, axis)

    def _conv(self, node: onnx.NodeProto, given: Quantized, weights: Quantized) -> np.ndarray:
        centred = weights.centred()
        convolve, reduced = float_conv(node), tuple(range(1, centred.ndim))
        sums = linear.exact_sums(given.centred(), centred, convolve, reduced=reduced)
        self.multiply_adds += sums.size * int(np.prod(centred.shape[1:]))
        if not self._pairs(weights):
            return sums
        spatial, kernel = given.integers.shape[2:], weights.integers.shape[2:]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        window = linear.Window.of(attributes, spatial, kernel)
        unsigned, zero = _unsigned(given)
        sums, found = linear.conv_excess(unsigned, weights.integers, window, fill=zero, sums=sums)
        self._count(node, found)
        return sums

    def _matmul(self, node: onnx.NodeProto, given: Quantized, weights: Quantized) -> np.ndarray | None:
        if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
            return None
        turned = bool(attribute(node, "transB", 0)), bool(attribute(node, "transA", 0))
        params = weights.params
        outputs = 0 if turned[0] else weights.integers.ndim - 1
        if params.scale.size > 1 and params.axis % weights.integers.ndim != outputs:
            return None
        right = weights.centred().T if turned[0] else weights.centred()
        left = given.centred().T if turned[1] else given.centred()
        sums = linear.exact_sums(left, right, np.matmul, reduced=(-2,))
        self.multiply_adds += sums.size * left.shape[-1]
        if not self._pairs(weights) or weights.integers.ndim != 2 or node.input[1] in self._made:
            return sums
        unsigned, _ = _unsigned(given)
        integers = weights.integers.T if turned[0] else weights.integers
        sums, found = linear.matmul_excess(unsigned.T if turned[1] else unsigned, integers, sums=sums)
        self._count(node, found)
        return sums

    def _pairs(self, weights: Quantized) -> bool:
        return self.arithmetic.accumulator == PAIRS and weights.integers.dtype == np.int8

    def _count(self, node: onnx.NodeProto, found: Saturation) -> None:
        name = node.name or node.output[0]
        self.saturation[name] = self.saturation.get(name, Saturation()) + found


def _per_tensor(value: Any) -> bool:
    return isinstance(value, Quantized) and value.params.scale.size == 1 and value.integers.dtype in BYTES


def _unsigned(value: Quantized) -> tuple[np.ndarray, int]:
    """Return activations as the u8 that x86 kernels take, and their zero point."""
    zero = int(value.params.zero_point.reshape(()))
    if value.integers.dtype == np.uint8:
        return value.integers, zero
    return (value.integers.astype(np.int16) + SIGNED_SHIFT).astype(np.uint8), zero + SIGNED_SHIFT


def _with_bias(sums: np.ndarray, bias: Any, scale: np.ndarray, axis: int) -> np.ndarray:
    """Add a bias in the scale of the sums: stored as int32, or rounded to it."""
    if isinstance(bias, Quantized) and bias.integers.dtype == np.int32:
        integers = bias.integers.astype(np.int64)
    else:
        integers = np.rint(_real(bias).astype(np.float64) / scale.astype(np.float64)).astype(np.int64)
    if integers.ndim == 1 and axis != -1:
        integers = rounding.along(integers, axis, sums.ndim)
    exact = sums.dtype == np.float32 and np.abs(integers).max(initial=0) < linear.EXACT_LIMIT // 2
    if exact and np.abs(sums).max(initial=0) < linear.EXACT_LIMIT // 2:
        return sums + integers.astype(np.float32)
    return sums.astype(np.int64) + integers


def _real(value: Any) -> np.ndarray:
    return value if isinstance(value, np.ndarray) else value.real()
