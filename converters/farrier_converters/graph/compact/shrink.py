"""Take from a quantized graph the bytes that say nothing: zero points of zero, copies, defaults, long names."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...model import Model
from ...quantize import reasons
from ..edit import Graph, standard
from . import fours, halves, palette
from .names import CONVERSIONS, shorten

LISTS = {"strides": 1, "dilations": 1, "pads": 0, "output_padding": 0}  # what they are when left out
SMALLEST_PRODUCT = (
    8  # bias scales that are computed when the file is opened: fewer take no more room than a node
)


def shrink(model: Model) -> Model:
    """Return a graph that computes the same bits from a smaller file; what operators write keeps its name.

    A graph that no quantization has visited is returned as it is.
    """
    nodes = model.proto.graph.node
    if not any(standard(node, *CONVERSIONS) or reasons.reason_of(node) for node in nodes):
        return model
    graph = Graph(model)
    for node in graph.nodes:
        node.ClearField("doc_string")
        _drop_defaults(node)
        reasons.abbreviate(node)
        if standard(node, *CONVERSIONS):
            _drop_zero_point(graph, node)
            node.ClearField("name")
    _drop_zero_biases(graph)
    _compute_bias_scales(graph)
    _merge_constants(graph)
    fours.pack(graph)
    palette.pack(graph)
    halves.pack(graph)
    _merge_constants(graph)  # what is proportional has the same places in its palette
    graph = Graph(graph.build())  # without what nothing reads any more
    shorten(graph)
    for name, tensor in graph.initializers.items():
        graph.initializers[name] = _plain(tensor, name)
    return graph.build()


def _drop_defaults(node: onnx.NodeProto) -> None:
    """Remove attributes that hold what their absence means."""
    if not standard(node, "Conv", "ConvTranspose", "MaxPool", "AveragePool", "Gemm", *CONVERSIONS):
        return
    defaults = {"group": 1, "auto_pad": b"NOTSET", "alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    defaults |= {"ceil_mode": 0, "count_include_pad": 0, "storage_order": 0}
    kept = []
    for field in node.attribute:
        value = helper.get_attribute_value(field)
        plain = LISTS.get(field.name)
        default = all(v == plain for v in value) if plain is not None else defaults.get(field.name) == value
        if not default:
            kept.append(field)
    del node.attribute[:]
    node.attribute.extend(kept)


def _drop_zero_point(graph: Graph, node: onnx.NodeProto) -> None:
    """A constant is dequantized around zero by default; the type of a quantizer's zero point is its result's."""
    if standard(node, "QuantizeLinear") or len(node.input) < 3 or node.input[0] not in graph.initializers:
        return
    readers = graph.readers.get(node.output[0], [])
    if any(standard(reader, "Gemm") and node.output[0] in reader.input[:2] for reader in readers):
        return  # ONNX Runtime's integer Gemm wants one of its weights
    zero_point = graph.constant(node.input[2])
    if zero_point is not None and not zero_point.any():
        del node.input[2]


def _drop_zero_biases(graph: Graph) -> None:
    for node in [n for n in graph.nodes if standard(n, "Conv") and len(n.input) > 2]:
        maker = graph.producer.get(node.input[2])
        stored = maker is not None and standard(maker, "DequantizeLinear") and len(maker.input) == 2
        bias = graph.constant(maker.input[0]) if stored and maker is not None else None
        if bias is not None and not bias.any():
            del node.input[2]
    graph.index()


def _compute_bias_scales(graph: Graph) -> None:
    """The scale of a bias is its input's scale times its weights' scales: let the engine multiply once, on opening."""
    for node in [n for n in graph.nodes if standard(n, "Conv", "Gemm", "ConvTranspose") and len(n.input) > 2]:
        makers = [graph.producer.get(name) for name in node.input]
        if not all(m is not None and standard(m, "DequantizeLinear") for m in makers):
            continue
        names = [m.input[1] for m in makers if m is not None]
        values = [graph.constant(name) for name in names]
        if any(value is None for value in values):
            continue
        data, weights, bias = (np.asarray(value) for value in values)
        same = data.dtype == weights.dtype == bias.dtype and np.array_equal(data * weights, bias)
        if data.ndim == 0 and bias.size >= SMALLEST_PRODUCT and same and makers[2] is not None:
            product = graph.fresh(f"{names[2]}_product")
            graph.add_node("Mul", names[:2], product).ClearField("name")
            makers[2].input[1] = product
    graph.index()


def _merge_constants(graph: Graph) -> None:
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    for name, tensor in list(graph.initializers.items()):
        value = graph.constant(name)
        if value is None or value.dtype == object or graph.kept(name):
            continue
        digest = hashlib.sha256(value.tobytes()).digest()
        original = first.setdefault((tensor.data_type, tuple(tensor.dims), digest), name)
        if original != name:
            graph.rename_reads(name, original)
    graph.index()


def _plain(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Return a tensor whose values are bytes, not numbers of varying length."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return tensor
    if not tensor.HasField("raw_data"):
        return numpy_helper.from_array(numpy_helper.to_array(tensor), name)
    plain = onnx.TensorProto(name=name, data_type=tensor.data_type, raw_data=tensor.raw_data)
    plain.dims.extend(tensor.dims)
    return plain
