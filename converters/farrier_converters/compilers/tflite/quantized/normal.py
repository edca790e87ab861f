"""One way of writing quantized graphs: real numbers between operators, quantizers and dequantizers on the tensors.

Some graphs pad, clip or move the integers themselves. Such an operator becomes one on real numbers between a
dequantizer and a quantizer of the same scale, which is the same to the last bit, so that what follows knows one form.
"""

from __future__ import annotations

import numpy as np
import onnx

from ....graph.edit import Graph, attribute, standard
from ....model import Model

MOVES = (  # operators that may stand between a quantizer and its dequantizer
    *("Pad", "Clip", "MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
    *("Gather", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "Identity"),
)
NUMBERS = {"Pad": (2,), "Clip": (1, 2)}  # inputs that are integers of the tensor's scale


def normal(model: Model) -> Model:
    """Return the same network with every operator but conversions on real numbers."""
    if not any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node):
        return model
    graph = Graph(model)
    _fold_quantized(graph)
    parameters: dict[str, list[str]] = {}
    for node in graph.ordered():
        if standard(node, "QuantizeLinear"):
            parameters[node.output[0]] = list(node.input[1:])
        elif standard(node, *MOVES) and node.input[0] in parameters and not attribute(node, "block_size", 0):
            known = parameters[node.input[0]]
            parameters |= {name: known for name in node.output if name}
            _on_reals(graph, node, known)
    graph.index()
    return graph.build()


def _fold_quantized(graph: Graph) -> None:
    """Quantize constants here, where an exporter left that to the engine."""
    for node in [n for n in graph.nodes if standard(n, "QuantizeLinear")]:
        value, scale = graph.constant(node.input[0]), graph.constant(node.input[1])
        zero = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if value is None or scale is None or zero is None or zero.dtype.name not in ("int8", "uint8"):
            continue
        axis = int(attribute(node, "axis", 1))
        shape = (
            [-1 if a == axis % max(value.ndim, 1) else 1 for a in range(value.ndim)] if scale.size > 1 else []
        )
        integers = np.rint(np.float32(value) / scale.reshape(shape)) + zero.astype(np.float32).reshape(shape)
        limits = np.iinfo(zero.dtype)
        stored = np.clip(integers, limits.min, limits.max).astype(zero.dtype)
        tensor = onnx.numpy_helper.from_array(stored, node.output[0])
        graph.initializers[node.output[0]] = tensor
        graph.remove([node])
    graph.index()


def _on_reals(graph: Graph, node: onnx.NodeProto, parameters: list[str]) -> None:
    """Put a dequantizer before a node and a quantizer behind each of its results, in place."""
    source = graph.fresh(f"{node.input[0]}_real")
    graph.add_node("DequantizeLinear", [node.input[0], *parameters], source)
    node.input[0] = source
    for position in NUMBERS.get(node.op_type, ()):
        if position < len(node.input) and node.input[position]:
            number = graph.fresh(f"{node.input[position]}_real")
            graph.add_node("DequantizeLinear", [node.input[position], *parameters], number)
            node.input[position] = number
    for position, name in enumerate(list(node.output)):
        if name:
            result = graph.fresh(f"{name}_real")
            node.output[position] = result
            graph.add_node("QuantizeLinear", [result, *parameters], name)
