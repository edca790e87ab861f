"""ONNX Runtime on a processor: what computes in integers, and why the rest stays in float.

Source: the kernels of ONNX Runtime's CPU provider, as `farrier_converters.quantize.rules` lists them, and its
documentation "Quantize ONNX Models" (QDQ format). A float graph is judged as if it were quantized to INT8.
"""

from __future__ import annotations

import onnx

from ...graph.edit import Graph, standard
from ...graph.types import TensorType
from ...model import from_proto
from ...quantize import placement as quantizers
from ...quantize import reasons, rules
from ...quantize.already import computes_in_integers
from ...tflite.file import TfliteFile
from ..network import PLUMBING
from ..placement import CPU, OnnxGraph, Parameters, Placement
from ..source import AS_IF, is_quantized

SOURCE = 'ONNX Runtime: QDQ kernels of the CPU provider; "Quantize ONNX Models"'
MEANING = "on a processor, accelerated means computed in integers"
FOLDED = ("Identity", "Dropout", "Constant")  # gone when the file is opened
FLOATS = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.DOUBLE,
    onnx.TensorProto.BFLOAT16,
)
CURES = {
    rules.TAIL: None,  # wanted so
    rules.NOT_CONSTANT: "make the second factor a constant where the model allows",
}


class OnnxRuntimeRules:
    """Everything runs on the processor; the question is in which arithmetic."""

    unit = CPU

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        opened = Graph(from_proto(graph.model, "check"))
        why = _as_it_stands(opened) if is_quantized(graph.model) else _as_if_quantized(opened)
        return [self._placement(node, graph.types, why) for node in opened.nodes]

    def notes(
        self, subject: TfliteFile | OnnxGraph, placements: list[Placement], parameters: Parameters
    ) -> list[str]:
        """Return what was assumed."""
        quantized = isinstance(subject, OnnxGraph) and is_quantized(subject.model)
        return [MEANING] if quantized else [AS_IF, MEANING]

    def _placement(
        self, node: onnx.NodeProto, types: dict[str, TensorType], why: dict[int, str]
    ) -> Placement:
        reason = why.get(id(node))
        if reason is None or not _computes_floats(node, types):
            return Placement(CPU)
        return Placement(CPU, reason, CURES.get(reason), source=SOURCE)


def _as_it_stands(graph: Graph) -> dict[int, str]:
    """Return by node why it computes in float, in a graph that somebody quantized."""
    return {
        id(node): reasons.reason_of(node) or rules.NO_KERNEL.format(op=node.op_type)
        for node in graph.nodes
        if not standard(node, *PLUMBING)
        and node.op_type not in rules.INTEGER_OPERATORS
        and not computes_in_integers(graph, node)
    }


def _as_if_quantized(graph: Graph) -> dict[int, str]:
    """Return by node why it would stay in float; batch norms that fold into what precedes them do not."""
    found = dict(quantizers.place(graph).reasons)
    for node in graph.nodes:
        maker = graph.producer.get(node.input[0]) if node.input else None
        behind = maker is not None and standard(maker, "Conv", "ConvTranspose", "Gemm")
        if standard(node, *FOLDED) or (standard(node, "BatchNormalization") and behind):
            found.pop(id(node), None)
    return found


def _computes_floats(node: onnx.NodeProto, types: dict[str, TensorType]) -> bool:
    """Say whether a node's result are floats: shapes, indices and comparisons are whole numbers anyway."""
    made = types.get(node.output[0]) if node.output else None
    return made is None or made.dtype in FLOATS


RULES = OnnxRuntimeRules()
