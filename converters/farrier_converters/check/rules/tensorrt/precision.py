"""In which precision the GPU computes each operator, and why not in integers."""

from __future__ import annotations

import onnx

from farrier_contracts.targets import INPUTS

from ....graph.edit import Graph, replace, standard
from ....graph.types import FLOAT, TensorType
from ....quantize import placement as quantizers
from ....quantize import reasons, rules
from ...network import PLUMBING
from .release import INT8_DOUBTFUL, WITHOUT_INT8, Board

NO_INT8 = "FP16: this GPU has no INT8"
DOUBTFUL_INT8 = "FP16: documents contradict each other about the INT8 of this GPU"
UNQUANTIZED = "none of what it reads is quantized"


def in_halves(graph: Graph, types: dict[str, TensorType], board: Board) -> dict[int, str]:
    """Return, by node, why an operator on floats computes in FP16; a float graph is judged as if it were quantized."""
    floats = [node for node in graph.nodes if not standard(node, *PLUMBING) and _computes_floats(node, types)]
    if board.sm in (*WITHOUT_INT8, *INT8_DOUBTFUL):
        why = NO_INT8 if board.sm in WITHOUT_INT8 else DOUBTFUL_INT8
        return {id(node): why for node in floats}
    found = _as_it_stands(graph) if quantized(graph) else _as_if_quantized(graph)
    return {id(node): f"FP16: {found[id(node)]}" for node in floats if id(node) in found}


def quantized(graph: Graph) -> bool:
    """Say whether a graph came with quantizers."""
    return any(standard(node, *PLUMBING) for node in graph.nodes)


def _as_it_stands(graph: Graph) -> dict[int, str]:
    return {
        id(node): reasons.reason_of(node) or UNQUANTIZED
        for node in graph.nodes
        if not reasons.is_integer(node) and not _reads_integers(graph, node)
    }


def _as_if_quantized(graph: Graph) -> dict[int, str]:
    """Return, by node, why it would stay in float; a batch norm is part of the convolution before it."""
    folded = Graph(graph.model)
    ends: dict[str, str] = {}  # what a convolution makes -> what its batch norm makes of that
    for norm in [n for n in folded.nodes if standard(n, "BatchNormalization")]:
        maker = folded.producer.get(norm.input[0])
        alone = maker is not None and folded.only_reader(norm.input[0]) is norm
        if maker is not None and alone and standard(maker, *rules.WEIGHTED):
            ends[norm.input[0]] = norm.output[0]
            replace(maker.output, norm.input[0], norm.output[0])
            folded.remove([norm])
    folded.index()
    why = quantizers.place(folded, INPUTS).reasons
    named = {node.output[0]: why[id(node)] for node in folded.nodes if id(node) in why}
    found = {id(node): ends.get(node.output[0], node.output[0]) for node in graph.nodes}
    return {node: named[name] for node, name in found.items() if name in named}


def _reads_integers(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether an operator that integers pay for reads dequantized activations: TensorRT makes both one kernel."""
    if not standard(node, *rules.WEIGHTED, *rules.ARITHMETIC, *rules.CARRIERS):
        return False
    makers = [graph.producer.get(name) for name in node.input if name]
    return any(maker is not None and standard(maker, "DequantizeLinear") for maker in makers)


def _computes_floats(node: onnx.NodeProto, types: dict[str, TensorType]) -> bool:
    kind = types.get(node.output[0]) if node.output else None
    return kind is not None and kind.dtype in (FLOAT, onnx.TensorProto.FLOAT16)
