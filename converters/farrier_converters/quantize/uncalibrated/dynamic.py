"""Dynamic INT8: MatMul, Gemm and LSTM multiply integers whose activation scale is found while the model runs.

The nodes are the ONNX standard's (DynamicQuantizeLinear, MatMulInteger); ONNX Runtime fuses them into one kernel.
LSTM has its own operator in ONNX Runtime. Convolutions stay in float: ConvInteger was measured to be several times
slower than the float kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...graph.edit import attribute, standard
from ...model import Model, from_proto, subgraphs
from .. import reasons, rules
from .integers import quantize, require_finite
from .scopes import Scopes, value_of

OPSET = 11  # the first with DynamicQuantizeLinear
MICROSOFT = "com.microsoft"


@dataclass
class _Writer:
    scopes: Scopes
    constants: dict[str, onnx.TensorProto]
    smallest: int
    bits: int
    exclude: frozenset[str]
    stored: dict[tuple[str, bool], tuple[str, str]] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def write(self, graph: onnx.GraphProto) -> None:
        """Rewrite a graph and, first, its subgraphs."""
        nodes: list[onnx.NodeProto] = []
        shared: dict[str, tuple[str, str, str]] = {}
        for node in graph.node:
            for inner in subgraphs(node):
                self.write(inner)
            reason = self.obstacle(node)
            if standard(node, "Constant"):
                nodes.append(node)
            elif reason is not None:
                reasons.set_reason(node, reason)
                nodes.append(node)
            elif node.op_type == "LSTM":
                nodes.append(self.lstm(node))
            else:
                nodes += self.product(node, shared)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)

    def obstacle(self, node: onnx.NodeProto) -> str | None:
        """Return why a node stays in float, or None."""
        if not standard(node, "MatMul", "Gemm", "LSTM"):
            return rules.NOT_DYNAMIC.format(op=node.op_type)
        if {node.name, node.output[0]} & self.exclude:
            return rules.EXCLUDED
        names = node.input[1:3] if node.op_type == "LSTM" else node.input[1:2]
        if any(name not in self.constants for name in names):
            return rules.NOT_CONSTANT
        sizes = [int(np.prod(self.constants[name].dims)) for name in names]
        if len(self.constants[names[0]].dims) < 2 or max(sizes) < self.smallest:
            return rules.SMALL
        return _lstm_obstacle(node) if node.op_type == "LSTM" else _product_obstacle(node, self.constants)

    def integers(self, name: str, *, transposed: bool) -> tuple[str, str]:
        """Return the names of a matrix's integers (inputs x outputs) and of their scales (outputs)."""
        if (name, transposed) not in self.stored:
            values = value_of(self.constants[name])
            require_finite(name, values)
            values = np.swapaxes(values, -1, -2) if transposed else values
            kept = tuple(a for a in range(values.ndim) if a != values.ndim - 2)
            integers, scale = quantize(values, kept, bits=self.bits)
            scale = np.squeeze(scale, axis=-2)
            self.stored[name, transposed] = (
                self.constant(name, "int8", integers),
                self.constant(name, "scale", scale),
            )
            self.replaced.add(name)
        return self.stored[name, transposed]

    def constant(self, name: str, what: str, value: np.ndarray) -> str:
        """Store a constant where every scope sees it."""
        fresh = self.scopes.fresh(f"{name}_{what}")
        self.scopes.proto.graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(value), fresh)
        )
        return fresh

    def product(self, node: onnx.NodeProto, shared: dict[str, tuple[str, str, str]]) -> list[onnx.NodeProto]:
        """Return a MatMul or Gemm in integers; `shared` knows the activations that this graph has quantized."""
        nodes = []
        source, result = node.input[0], node.output[0]
        weights, scale = self.integers(node.input[1], transposed=bool(attribute(node, "transB", 0)))
        if source not in shared:
            names = tuple(self.scopes.fresh(f"{source}_{part}") for part in ("dynamic", "range", "zero"))
            shared[source] = names[0], names[1], names[2]
            nodes.append(helper.make_node("DynamicQuantizeLinear", [source], list(names)))
        integers, input_scale, zero = shared[source]
        sums, floats, both = (self.scopes.fresh(f"{result}_{part}") for part in ("sums", "cast", "scales"))
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        plain = self.scopes.fresh(f"{result}_plain") if bias else result
        nodes += [
            helper.make_node("MatMulInteger", [integers, weights, zero], [sums], name=node.name),
            *map(
                reasons.mark_part,
                (
                    helper.make_node("Cast", [sums], [floats], to=onnx.TensorProto.FLOAT),
                    helper.make_node("Mul", [input_scale, scale], [both]),
                    helper.make_node("Mul", [floats, both], [plain]),
                ),
            ),
        ]
        if bias:
            nodes.append(reasons.mark_part(helper.make_node("Add", [plain, bias], [result])))
        return nodes

    def lstm(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return ONNX Runtime's LSTM with int8 weights (directions x inputs x 4 hidden)."""
        inputs = [*node.input, *[""] * (8 - len(node.input))]
        for position in (1, 2):
            name = node.input[position]
            weights, scale = self.integers(name, transposed=True)
            shape = value_of(next(t for t in self.scopes.proto.graph.initializer if t.name == scale)).shape
            zero = self.constant(name, "zero", np.zeros(shape, np.int8))
            inputs[position] = weights
            inputs += [scale, zero]
        kept = [field for field in node.attribute if field.name != "layout"]
        quantized = helper.make_node(
            "DynamicQuantizeLSTM", inputs, list(node.output), name=node.name, domain=MICROSOFT
        )
        quantized.attribute.extend(kept)
        if not any(o.domain == MICROSOFT for o in self.scopes.proto.opset_import):
            self.scopes.proto.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
        return quantized


def _product_obstacle(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> str | None:
    if len(constants[node.input[1]].dims) != 2:
        return rules.NOT_MATRIX
    scaled = attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0
    return rules.SCALED if scaled or attribute(node, "transA", 0) else None


def _lstm_obstacle(node: onnx.NodeProto) -> str | None:
    plain = not attribute(node, "layout", 0) and not (len(node.input) > 7 and node.input[7])
    return None if plain else rules.LSTM_KIND


def compute_dynamically(model: Model, *, smallest: int, bits: int, exclude: frozenset[str]) -> Model:
    """Return the model with its products of constant weights in integers; each other node has its reason.

    Raises InputError for weights that are not finite.
    """
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    proto.ir_version = max(proto.ir_version, 4)
    scopes = Scopes(proto)
    writer = _Writer(scopes, scopes.constants(), smallest, bits, exclude)
    writer.write(proto.graph)
    scopes.drop_unread(writer.replaced)
    return from_proto(proto, model.name)
