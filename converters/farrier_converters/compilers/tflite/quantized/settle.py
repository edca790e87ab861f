"""Find the tensors that a graph keeps in 8-bit integers, and their scales.

What a dequantizer makes is one of them, and what a quantizer alone reads. A quantizer changes places with whatever
only moves or selects values, without changing a bit of the result: so scales spread over such operators, back from
quantizers and on from dequantizers.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from ....graph.edit import Graph, standard
from ..quanta import Quanta
from .parameters import quanta_of

MOVERS = (  # exactly the values of their input, from one scale to the same
    *(
        "Reshape",
        "Flatten",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Slice",
        "Split",
        "Gather",
        "Expand",
        "Tile",
    ),
    *(
        "DepthToSpace",
        "SpaceToDepth",
        "Identity",
        "MaxPool",
        "Relu",
        "GlobalMaxPool",
        "ReduceMax",
        "ReduceMin",
    ),
)
JOINS = ("Concat", "Max", "Min")  # of all inputs alike
# Rounding to a grid that holds zero, then this, is the same as this and then rounding.
MONOTONE = (*MOVERS, *JOINS, "Clip")


def settle(graph: Graph) -> dict[str, Quanta]:
    """Return the quanta of real tensors by name: those that are dequantized, and those that will be quantized."""
    nodes = graph.ordered()
    found: dict[str, Quanta] = {}
    for node in nodes:
        _forward(graph, node, found)
    for node in reversed(nodes):
        for name in node.output:
            if name and name not in found:
                _backward(graph, name, found)
    for value in graph.inputs:
        if value.name not in found:
            _backward(graph, value.name, found)
    return found


def _forward(graph: Graph, node: onnx.NodeProto, found: dict[str, Quanta]) -> None:
    if standard(node, "DequantizeLinear"):
        known = quanta_of(graph, node)
        if known is not None and (known.single or graph.constant(node.input[0]) is not None):
            found[node.output[0]] = known
            if any(node.input[0] == value.name for value in graph.inputs):
                found[node.input[0]] = known
        return
    if standard(node, "QuantizeLinear"):
        known = quanta_of(graph, node)
        if known is not None:
            found[node.output[0]] = known
        return
    if not standard(node, *MOVERS, *JOINS):
        return
    names = node.input if standard(node, *JOINS) else node.input[:1]
    scales = {found.get(name) for name in names}
    first = scales.pop()
    if first is not None and not scales and first.single and not _quantized_again(graph, node):
        found.update(dict.fromkeys((name for name in node.output if name), first))


def _quantized_again(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a quantizer follows, which knows better."""
    return any(
        standard(reader, "QuantizeLinear") for name in node.output for reader in graph.readers.get(name, [])
    )


def _backward(graph: Graph, name: str, found: dict[str, Quanta]) -> None:
    """Give a tensor the scale that all its readers round it to."""
    readers = graph.readers.get(name, [])
    if graph.kept(name) or not readers:
        return
    wanted = set(_wanted(graph, name, readers, found))
    first = wanted.pop()
    if first is not None and not wanted and first.single:
        found[name] = first


def _wanted(
    graph: Graph, name: str, readers: Iterable[onnx.NodeProto], found: dict[str, Quanta]
) -> Iterable[Quanta | None]:
    for reader in readers:
        if standard(reader, "QuantizeLinear") and reader.input[0] == name:
            yield quanta_of(graph, reader)
        elif standard(reader, *MONOTONE) and (reader.input[0] == name or standard(reader, *JOINS)):
            results = {found.get(result) for result in reader.output if result}
            yield results.pop() if len(results) == 1 else None
        else:
            yield None
