"""Blocks of pixels move to channels and back."""

from __future__ import annotations

from ....tflite import layout
from ....tflite.layout import Order
from ..builder import Builder
from ..node import Handler, Node


def _depth_to_space(b: Builder, node: Node) -> None:
    """TFLite's order of the channels is ONNX's DCR; CRD is a reshape, a transpose and a reshape."""
    x, block = node.input(0), int(node.attr("blocksize"))
    rows, channels, height, width = x.shape
    kept = channels // block**2
    order: Order = (0, 2, 3, 1)
    held = b.get(x, order)
    if node.attr("mode", "DCR") == "CRD":
        held = b.reshape(held, (rows * height, width, kept, block**2))
        held = b.reshape(b.transpose(held, (0, 1, 3, 2)), (rows, height, width, channels))
    shape = layout.permuted(node.output.shape, order)
    b.put(node.output, b.op("DEPTH_TO_SPACE", [held], shape, block=block), order)


def _space_to_depth(b: Builder, node: Node) -> None:
    x, block = node.input(0), int(node.attr("blocksize"))
    order: Order = (0, 2, 3, 1)
    shape = layout.permuted(node.output.shape, order)
    held = b.op("SPACE_TO_DEPTH", [b.get(x, order)], shape, block=block)
    if node.attr("mode", "DCR") == "CRD":
        rows, height, width, channels = shape
        held = b.reshape(held, (rows * height, width, block**2, channels // block**2))
        held = b.reshape(b.transpose(held, (0, 1, 3, 2)), shape)
    b.put(node.output, held, order)


BLOCKS: dict[str, Handler] = {"DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth}
