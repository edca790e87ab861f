"""Graphs for looking inside: extra outputs, layers fed with another model's tensors, noise added at tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper

from ..graph import run
from ..graph.edit import Graph, replace, standard
from ..model import Model
from .pairs import Pair
from .quantizers import Quantizers

FORCED = "/forced"
NOISE = "/noise"
BEFORE = "/before"


def with_outputs(proto: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """Return the part of a graph that gives these tensors, or else its first output."""
    return run.up_to(proto, list(names) or [proto.graph.output[0].name])


def forced(
    model: Model, pairs: Sequence[Pair], quantizers: Quantizers, dtypes: Mapping[str, np.dtype]
) -> onnx.ModelProto:
    """Return B with every pair's readers fed from an input "NAME/forced": each layer computes from those alone.

    The quantizer of a tensor belongs to the layer that makes it, so what is fed in is not quantized again, but for
    nodes that work on its integers.
    """
    graph = Graph(model)
    owner = {name: p for p in pairs for name in (p.made, *p.read)}
    own = {q.integers: q for q in quantizers.activations.values()}
    integers = {q.integers: owner[q.source] for q in own.values() if q.source in owner}
    for node in list(graph.nodes):
        for position, name in enumerate(node.input):
            if name in owner and not _is_own(node, owner[name], quantizers):
                node.input[position] = owner[name].name + FORCED
            elif name in integers and not standard(node, "DequantizeLinear"):
                node.input[position] = _requantized(graph, integers[name], own[name].key)
    for p in pairs:
        kind = helper.np_dtype_to_tensor_dtype(dtypes[p.name])
        graph.inputs.append(helper.make_tensor_value_info(p.name + FORCED, kind, None))
    return _all_outputs(graph, [p.result for p in pairs])


def noisy(model: Model, pairs: Sequence[Pair], dtypes: Mapping[str, np.dtype]) -> onnx.ModelProto:
    """Return A with an input "NAME/noise" added to each pair's tensor; subgraphs see inputs without it."""
    graph = Graph(model)
    for p in pairs:
        kind = helper.np_dtype_to_tensor_dtype(dtypes[p.name])
        graph.inputs.append(helper.make_tensor_value_info(p.name + NOISE, kind, None))
        maker = graph.producer.get(p.name)
        if maker is None:
            graph.rename_reads(p.name, p.name + BEFORE)
            graph.add_node("Add", [p.name, p.name + NOISE], p.name + BEFORE)
        else:
            replace(maker.output, p.name, p.name + BEFORE)
            graph.add_node("Add", [p.name + BEFORE, p.name + NOISE], p.name)
    return graph.build().proto


def _is_own(node: onnx.NodeProto, p: Pair, quantizers: Quantizers) -> bool:
    quantizer = quantizers.activations.get(p.made)
    return quantizer is not None and list(node.output) == [quantizer.integers]


def _requantized(graph: Graph, p: Pair, key: tuple[str, str]) -> str:
    name = f"{p.name}{FORCED}/quantized"
    if not any(name in node.output for node in graph.nodes):
        graph.add_node("QuantizeLinear", [p.name + FORCED, *(k for k in key if k)], name)
    return name


def _all_outputs(graph: Graph, names: Sequence[str]) -> onnx.ModelProto:
    """Build the graph with these outputs in place of its own, nodes that none of them needs left out."""
    graph.outputs = list(dict.fromkeys(names))
    proto = graph.build().proto
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in graph.outputs)
    return proto
