"""What a rewrite saves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx import helper

from ..graph.edit import attribute, standard
from .record import Gain, Rewrite
from .site import Site

MOVES = (
    "Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split",
    "Concat", "Pad", "Gather", "Expand", "Tile", "Shape", "Constant", "Resize", "DepthToSpace", "SpaceToDepth",
)  # fmt: skip


def gain(site: Site, rewrite: Rewrite) -> Gain:
    """Count nodes, operations and written bytes before and after."""
    made = {name for node in rewrite.old for name in node.output}
    kept = {name for node in rewrite.new for name in node.output} & made
    new = [node for node in rewrite.new if kept.intersection(node.output)]
    return Gain(
        len(rewrite.old) - len(rewrite.new),
        _operations(site, rewrite.old) - _operations(site, new),
        _bytes(site, rewrite.old) - _bytes(site, new),
    )


def _operations(site: Site, nodes: Sequence[onnx.NodeProto]) -> int:
    return sum(_elements(site, node.output[0]) * _per_element(site, node) for node in nodes)


def _per_element(site: Site, node: onnx.NodeProto) -> int:
    if standard(node, *MOVES):
        return 0
    weight = site.shape(node.input[1]) if len(node.input) > 1 else None
    if weight is None or not standard(node, "Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 1
    sizes = [size or 1 for size in weight]
    if node.op_type == "Conv":
        return math.prod(sizes[1:])
    if node.op_type == "ConvTranspose":  # an upper bound where it strides
        return math.prod(sizes) // (sizes[1] * attribute(node, "group", 1))
    return sizes[-1] if attribute(node, "transB", 0) else sizes[-2 if len(sizes) > 1 else 0]


def _elements(site: Site, name: str) -> int:
    return math.prod(size or 1 for size in site.shape(name) or (0,))


def _bytes(site: Site, nodes: Sequence[onnx.NodeProto]) -> int:
    total = 0
    for node in nodes:
        for name in node.output:
            kind = site.types.get(name)
            if kind is not None and kind.shape is not None and kind.dtype != onnx.TensorProto.STRING:
                total += _elements(site, name) * helper.tensor_dtype_to_np_dtype(kind.dtype).itemsize
    return total
