"""Find pairs of QuantizeLinear and DequantizeLinear that one fused step can compute."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph.edit import attribute, captures, standard
from ..model import subgraphs


@dataclass(frozen=True)
class Pair:
    """What the fused step reads (values, scale, zero point), its axis, and the bounds of a Clip between."""

    inputs: tuple[str, ...]
    axis: int
    bounds: tuple[int, int] | None


def fake_quantizers(graph: onnx.GraphProto) -> tuple[dict[str, Pair], set[str]]:
    """Return the pairs by their result, and the results of the nodes that they make needless."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {t.name: t for t in graph.initializer}
    counts: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            counts[name] = counts.get(name, 0) + 1
        for inner in subgraphs(node):
            counts.update({name: 2 for name in captures(inner)})
    counts.update({value.name: 2 for value in graph.output})
    pairs: dict[str, Pair] = {}
    skipped: set[str] = set()
    for node in graph.node:
        if not standard(node, "DequantizeLinear"):
            continue
        maker = makers.get(node.input[0])
        bounds, between = None, []
        if maker is not None and standard(maker, "Clip") and counts[maker.output[0]] == 1:
            bounds, between = _bounds(maker, constants), [maker]
            maker = makers.get(maker.input[0]) if bounds else None
        if maker is None or not standard(maker, "QuantizeLinear") or counts[maker.output[0]] != 1:
            continue
        if list(maker.input[1:]) != list(node.input[1:]) or attribute(node, "block_size", 0):
            continue
        pairs[node.output[0]] = Pair(tuple(maker.input), attribute(node, "axis", 1), bounds)
        skipped.update(n.output[0] for n in (*between, maker))
    return pairs, skipped


def _bounds(clip: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> tuple[int, int] | None:
    stored = [constants.get(name) for name in clip.input[1:]]
    found = [np.asarray(numpy_helper.to_array(t)) for t in stored if t is not None]
    return (int(found[0]), int(found[1])) if len(found) == 2 else None
