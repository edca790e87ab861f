"""Centre what a Relu makes around zero, for targets whose activations have no zero points.

A Relu's results are never negative, so that one symmetric scale leaves half of its integers unused. relu(x) - c lies
within -c..c for the right c. It is max(x - c, -c): the bias of the layer before takes up -c, and the Relu becomes a
Clip. The layers behind get c times the sum of their weights added to their biases; and where they pad, a Pad of its own
fills with -c, which stands for zero now.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx

from ...graph.bounds import bounds
from ...graph.edit import Graph, attribute, set_attribute, standard
from ..scales import Range

LAYERS = ("Conv", "Gemm")
MARK = "zero"  # in the metadata of a Clip that stands for a Relu: which end of it zero has become


@dataclass(frozen=True)
class Site:
    """A tensor that can be centred: the layer and the activation that make it, and the layers that read it."""

    name: str
    layer: onnx.NodeProto
    activation: onnx.NodeProto
    readers: tuple[onnx.NodeProto, ...]


def sites(graph: Graph) -> list[Site]:
    """Return the results of a Relu (or a Clip from zero) behind a layer that layers alone read, in graph order."""
    found = []
    for node in graph.nodes:
        ends = bounds(graph, node)
        if ends is None or ends[0] != 0:
            continue
        name, layer = node.output[0], graph.producer.get(node.input[0])
        readers = tuple(graph.readers.get(name, ()))
        if (
            layer is not None
            and _constant(graph, layer)
            and graph.only_reader(node.input[0]) is node
            and readers
            and not graph.kept(name)
            and all(_reads(graph, reader, name) for reader in readers)
        ):
            found.append(Site(name, layer, node, readers))
    return found


def centre(graph: Graph, site: Site, middle: float) -> None:
    """Move a tensor down by `middle`, in place, and cut it off as far above zero. Index the graph afterwards.

    Below twice `middle`, the function of the graph stays.
    """
    by = np.float32(middle)
    _add_to_bias(graph, site.layer, np.full(_outputs(graph, site.layer), -by))
    name = graph.fresh(f"{site.name}_centred")
    moved = graph.fresh(f"{site.name}_moved")
    limits = [graph.add_constant(f"{name}_{end}", np.array(v)) for end, v in (("least", -by), ("most", by))]
    site.layer.output[0] = moved
    graph.add_node("Clip", [moved, *limits], name).metadata_props.add(key=MARK, value="least")
    graph.remove([site.activation])
    for node in site.readers:
        weight = graph.constant(node.input[1])
        assert weight is not None
        axes = (
            tuple(range(1, weight.ndim)) if node.op_type == "Conv" or attribute(node, "transB", 0) else (0,)
        )
        _add_to_bias(graph, node, by * weight.sum(axis=axes, dtype=np.float64))
        node.input[0] = _padded(graph, node, name, limits[0], weight.ndim)


def span(graph: Graph, name: str) -> Range | None:
    """Return the range of a centred tensor, None for any other.

    It has to be met exactly: half of all values may lie at one end, and each would be wrong by what is missing.
    """
    node = graph.producer.get(name)
    if node is None or not any(field.key == MARK for field in node.metadata_props):
        return None
    low, high = bounds(graph, node) or (None, None)
    return None if low is None or high is None else Range(low, high)


def zeros(graph: Graph) -> dict[str, np.ndarray]:
    """Return, for each centred tensor that layers read, what stands for zero there, per channel.

    The biases of its readers hold that times the sum of their weights: after these are rounded, it has to be the sum of
    the rounded ones (`bias.correct_by_means` does that), or zero would no longer give zero.
    """
    found = {}
    for node in graph.nodes:
        if not standard(node, *LAYERS) or graph.constant(node.input[1]) is None:
            continue
        maker = graph.producer.get(node.input[0])
        extent = span(
            graph, maker.input[0] if maker is not None and standard(maker, "Pad") else node.input[0]
        )
        if extent is not None:
            shape = graph.initializers[node.input[1]].dims
            turned = node.op_type == "Gemm" and not attribute(node, "transB", 0)
            channels = shape[0] if turned else shape[1] * attribute(node, "group", 1)
            found[node.input[0]] = np.full(channels, extent.low)
    return found


def _padded(graph: Graph, node: onnx.NodeProto, name: str, fill: str, rank: int) -> str:
    """Return the tensor that a reader gets: padded beforehand where it pads."""
    pads = attribute(node, "pads", []) if node.op_type == "Conv" else []
    if not any(pads):
        return name
    half = len(pads) // 2
    amounts = [0, 0, *pads[:half], 0, 0, *pads[half:]]
    set_attribute(node, "pads", [0] * len(pads))
    assert len(amounts) == 2 * rank
    result = graph.fresh(f"{name}_padded")
    graph.add_node("Pad", [name, graph.add_constant(f"{result}_by", np.array(amounts)), fill], result)
    return result


def _add_to_bias(graph: Graph, node: onnx.NodeProto, change: np.ndarray) -> None:
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    before = np.zeros(1, np.float32) if bias is None else bias.reshape(-1)
    stored = graph.add_constant(f"{node.output[0]}_bias_centred", (before + change).astype(np.float32))
    kept = list(node.input[:2])
    del node.input[:]
    node.input.extend([*kept, stored])


def _reads(graph: Graph, node: onnx.NodeProto, name: str) -> bool:
    """Whether a node is a layer that multiplies this tensor by constant weights, and pads with nothing but zeros."""
    return (
        _constant(graph, node)
        and node.input[0] == name
        and list(node.input).count(name) == 1
        and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and not attribute(node, "transA", 0)
    )


def _constant(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a node is a Conv or Gemm with constant float32 weights and a bias that is constant or none."""
    if not standard(node, *LAYERS):
        return False
    weight = graph.constant(node.input[1])
    bias = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    return (
        weight is not None
        and weight.dtype == np.float32
        and bias is not None
        and bias.size in (1, _outputs(graph, node))
        and attribute(node, "alpha", 1.0) == 1.0
        and attribute(node, "beta", 1.0) == 1.0
    )


def _outputs(graph: Graph, node: onnx.NodeProto) -> int:
    shape = graph.initializers[node.input[1]].dims
    return int(shape[0] if node.op_type == "Conv" or attribute(node, "transB", 0) else shape[-1])
