"""Choose float or integers for each operator so that the whole graph takes least time by the cost table.

Every operator that may be integer is a member of a network whose minimum cut is the choice; a tensor that crosses
from one kind to the other costs its conversion, once for all its readers.
"""

from __future__ import annotations

import math

import onnx

from ...graph.edit import Graph, attribute, reads, standard
from ...graph.types import TensorType, infer
from .. import rules
from ..placement import Placement
from . import costs
from .cut import ENDLESS, SINK, SOURCE, Network
from .widen import feeds_convolution

UNKNOWN_SIZE = 32  # of a dimension that is free, besides the batch
# what ONNX Runtime computes on blocks of channels as well, so that they stay between two convolutions
POOLS = (
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Resize",
    "BatchNormalization",
    "Concat",
    "Add",
    "Mul",
)
KEEP_BLOCKS = (*POOLS, "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "HardSwish", "PRelu")
IN_DOUBT = 0.9  # of float's time: where both are about equal, integers take less memory


def float_where_faster(graph: Graph, plan: Placement) -> frozenset[str]:
    """Return the first outputs of operators that the plan made integer, and that are faster left in float."""
    types = infer(graph.without_weights())
    members = [node for node in graph.nodes if id(node) in plan.integer]
    if not any(standard(node, "Conv") or _is_product(graph, node) for node in members):
        return frozenset()
    network = Network()
    numbers = {id(node): network.member() for node in members}
    for node in members:
        in_float, in_integers = _times(graph, node, types)
        if standard(node, "Gemm", "MatMul") and not _is_product(graph, node):
            in_float = ENDLESS  # they are most of a file, and memory is most of their time
        network.connect(numbers[id(node)], SINK, round(in_float * IN_DOUBT))
        network.connect(SOURCE, numbers[id(node)], round(in_integers))
        maker = graph.producer.get(node.input[0])
        if standard(node, *rules.ACTIVATIONS) and maker is not None and id(maker) in numbers:
            network.connect(numbers[id(node)], numbers[id(maker)], ENDLESS)  # the two are one kernel
            network.connect(numbers[id(maker)], numbers[id(node)], ENDLESS)
    readers: dict[str, list[int]] = {name: [SOURCE] for name in graph.outputs}
    for node in graph.nodes:
        for name in sorted(reads(node)):
            readers.setdefault(name, []).append(numbers.get(id(node), SOURCE))
    for name, (quantizing, dequantizing) in _conversions(graph, types).items():
        maker = graph.producer.get(name)
        made_by = SOURCE if maker is None else numbers.get(id(maker), SOURCE)
        _border(network, made_by, readers.get(name, []), quantizing, dequantizing)
    chosen = network.source_side()
    return frozenset(node.output[0] for node in members if numbers[id(node)] in chosen)


def _blocked(graph: Graph) -> frozenset[str]:
    """Return the tensors whose channels the engine keeps in blocks between float convolutions."""
    found: set[str] = set()
    for node in graph.ordered():
        if standard(node, "Conv") or (standard(node, *KEEP_BLOCKS) and found.intersection(node.input)):
            found.update(node.output)
    return frozenset(found)


def _is_product(graph: Graph, node: onnx.NodeProto) -> bool:
    return standard(node, "MatMul") and graph.constant(node.input[1]) is None


def _conversions(graph: Graph, types: dict[str, TensorType]) -> dict[str, tuple[float, float]]:
    """Return what quantizing and dequantizing each activation costs."""
    blocked = _blocked(graph)
    found = {}
    for name in (*(value.name for value in graph.inputs), *graph.producer):
        elements, maker = _elements(types.get(name)), graph.producer.get(name)
        if name in blocked:
            found[name] = elements * costs.TO_INTEGER, elements * costs.TO_FLOAT
        elif maker is None or any(standard(n, "Conv") for n in graph.readers.get(name, [])):
            found[name] = elements * costs.INPUT_TO_INTEGER, elements * costs.TO_FLOAT
        else:
            free = standard(maker, "Gemm", "MatMul")  # their integer kernels return either
            dequantizing = 0.0 if free else costs.CALL + elements * costs.PLAIN_TO_FLOAT
            found[name] = costs.CALL + elements * costs.PLAIN_TO_INTEGER, dequantizing
    return found


def _border(network: Network, maker: int, readers: list[int], quantizing: float, dequantizing: float) -> None:
    """Let a tensor pay for being read as the other kind."""
    if not readers or (set(readers) == {SOURCE} and maker == SOURCE):
        return
    to_integer = network.member()
    network.connect(maker, to_integer, round(quantizing))
    to_float = network.member()
    network.connect(to_float, maker, round(dequantizing))
    for reader in dict.fromkeys(readers):
        network.connect(to_integer, reader, ENDLESS)
        network.connect(reader, to_float, ENDLESS)


def _times(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> tuple[float, float]:
    """Return nanoseconds in float and in integers."""
    elements = sum(_elements(types.get(name)) for name in node.output)
    if not standard(node, *rules.LINEAR):
        if standard(node, *rules.ACTIVATIONS):
            return 0.0, 0.0  # part of the operator before, as a rule
        return elements * costs.MOVE_FLOAT, elements * costs.MOVE_INTEGER
    if _is_product(graph, node):
        inner = (_sizes(types.get(node.input[0])) or [1])[-1]
        return costs.product_ns(elements * inner, elements)
    layer = _layer(graph, node, types)
    return costs.float_ns(layer), costs.integer_ns(layer.widened)


def _layer(graph: Graph, node: onnx.NodeProto, types: dict[str, TensorType]) -> costs.Layer:
    weight = types.get(node.input[1], TensorType(0, None)).shape or ()
    sizes = [size or UNKNOWN_SIZE for size in weight]
    result = types.get(node.output[0])
    if node.op_type != "Conv":
        outputs = (_sizes(result) or [1])[-1]
        inputs = (_sizes(types.get(node.input[0])) or [1])[-1]
        return costs.Layer(inputs, outputs, pixels=max(_elements(result) // outputs, 1))
    group = attribute(node, "group", 1)
    spatial = _sizes(result)[2:] or [UNKNOWN_SIZE]
    return costs.Layer(
        inputs=sizes[1] * group,
        outputs=sizes[0],
        pixels=math.prod(spatial),
        side=min(spatial),
        taps=math.prod(sizes[2:]),
        group=group,
        strided=any(step != 1 for step in attribute(node, "strides", ())),
        moved=_elements(types.get(node.input[0])) + _elements(result),
        fed=feeds_convolution(graph, node),
    )


def _sizes(kind: TensorType | None) -> list[int]:
    """Return the shape at batch 1, with a guess for what is free."""
    shape = (kind.shape or ()) if kind is not None else ()
    return [(size or (UNKNOWN_SIZE if axis else 1)) for axis, size in enumerate(shape)]


def _elements(kind: TensorType | None) -> int:
    return math.prod(_sizes(kind))
