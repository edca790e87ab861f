"""What a rewrite saves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from ..graph.edit import attribute, standard
from ..graph.types import TensorType, infer
from .place import both, place_of
from .record import Gain, Rewrite
from .site import Site

MOVES = (
    "Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split",
    "Concat", "Pad", "Gather", "Expand", "Tile", "Shape", "Constant", "Resize", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip
Types = Mapping[str, TensorType]


def gain(site: Site, rewrite: Rewrite, results: Sequence[str]) -> Gain:
    """Count nodes, operations and written bytes before and after, for the sizes that are known."""
    place = place_of(site, rewrite)
    shapes = {name: [size or 1 for size in site.shape(name) or ()] for name in place.variables}
    proto = both(site, rewrite, results, place, shapes)
    types, first = infer(proto), len(place.sizes)
    old = proto.graph.node[first : first + len(rewrite.old)]
    new = proto.graph.node[first + len(rewrite.old) :][: len(rewrite.new)]
    return Gain(
        len(old) - len(new),
        _operations(types, old) - _operations(types, new),
        _bytes(types, old) - _bytes(types, new),
    )


def _operations(types: Types, nodes: Sequence[onnx.NodeProto]) -> int:
    return sum(_elements(types, node.output[0]) * _per_element(types, node) for node in nodes)


def _per_element(types: Types, node: onnx.NodeProto) -> int:
    if standard(node, *MOVES):
        return 0
    weight = types.get(node.input[1]) if len(node.input) > 1 else None
    if (
        weight is None
        or weight.shape is None
        or not standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul")
    ):
        return 1
    sizes = [size or 1 for size in weight.shape]
    if node.op_type == "Conv":
        return math.prod(sizes[1:])
    if node.op_type == "ConvTranspose":  # an upper bound where it strides
        return math.prod(sizes) // (sizes[1] * attribute(node, "group", 1))
    return sizes[-1] if attribute(node, "transB", 0) else sizes[-2 if len(sizes) > 1 else 0]


def _elements(types: Types, name: str) -> int:
    kind = types.get(name)
    return 0 if kind is None or kind.shape is None else math.prod(size or 1 for size in kind.shape)


def _bytes(types: Types, nodes: Sequence[onnx.NodeProto]) -> int:
    total = 0
    for name in (name for node in nodes for name in node.output if name in types):
        dtype = types[name].dtype
        if dtype != onnx.TensorProto.STRING:
            total += _elements(types, name) * helper.tensor_dtype_to_np_dtype(dtype).itemsize
    return total
