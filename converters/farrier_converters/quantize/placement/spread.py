"""Find tensors whose values span many orders of magnitude, such as spectra: integers of one scale cannot hold them."""

from __future__ import annotations

import onnx

from ...graph.edit import Graph, standard
from .. import rules

MOVED_BY = (*rules.MOVERS, "Cast", "Identity", "Split", "Concat")


def spreading_operator(graph: Graph, node: onnx.NodeProto) -> str | None:
    """Return the operator that makes what a linear node reads, or that alone reads what a convolution makes.

    A Gemm or MatMul returns float, so only a convolution's result matters.
    """
    maker = graph.producer.get(node.input[0])
    while maker is not None and standard(maker, *MOVED_BY) and maker.input:
        maker = graph.producer.get(maker.input[0])
    if maker is not None and standard(maker, *rules.SPREADING):
        return maker.op_type
    if not standard(node, "Conv"):
        return None
    readers = _final_readers(graph, node.output[0])
    if readers and all(standard(reader, *rules.PROPORTIONAL) for reader in readers):
        return readers[0].op_type
    return None


def _final_readers(graph: Graph, name: str) -> list[onnx.NodeProto]:
    """Return who reads a tensor, at once or moved about; nobody, where something outside of the graph does too."""
    found: list[onnx.NodeProto] = []
    waiting, seen = [name], {name}
    while waiting:
        name = waiting.pop()
        if graph.kept(name):
            return []
        for reader in graph.readers.get(name, []):
            if not standard(reader, *MOVED_BY):
                found.append(reader)
                continue
            waiting += [result for result in reader.output if result not in seen]
            seen.update(reader.output)
    return found
