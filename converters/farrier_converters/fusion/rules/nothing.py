"""Operators that give back what they are given."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ...graph.edit import attribute
from ..record import Rewrite, Rule
from ..rewriting import can_alias
from ..site import Site

IDEMPOTENT = ("Relu", "Abs", "Ceil", "Floor", "Round", "Sign")  # the second one changes nothing
NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Pow": 1.0}
END = 1 << 31  # an end of Slice from here on means "to the end", whatever the size


def find(site: Site, node: onnx.NodeProto) -> Rewrite | None:
    """Let readers of such an operator read its input."""
    if any(site.graph.readers.get(name) or site.graph.kept(name) for name in node.output[1:] if name):
        return None
    source = CASES[node.op_type](site, node)
    if not source or not can_alias(site.graph, node.output[0], source):
        return None
    aliases = {node.output[0]: source}
    if node.op_type in IDEMPOTENT:  # a proof needs the first one too, which stays
        first = site.graph.producer[source]
        return Rewrite((first, node), (first,), aliases)
    return Rewrite((node,), aliases=aliases)


def _always(_site: Site, node: onnx.NodeProto) -> str | None:
    return node.input[0]


def _dropout(site: Site, node: onnx.NodeProto) -> str | None:
    if site.opset < 7:
        return node.input[0] if attribute(node, "is_test", 0) else None
    if len(node.input) > 2 and node.input[2]:
        training = site.constant(node.input[2])
        return None if training is None or training.any() else node.input[0]
    return node.input[0]


def _cast(site: Site, node: onnx.NodeProto) -> str | None:
    kind = site.types.get(node.input[0])
    return node.input[0] if kind is not None and kind.dtype == attribute(node, "to") else None


def _pad(site: Site, node: onnx.NodeProto) -> str | None:
    pads = site.numbers(node, 1, "pads")
    return node.input[0] if pads is not None and not any(pads) else None


def _slice(site: Site, node: onnx.NodeProto) -> str | None:
    starts, ends = site.numbers(node, 1, "starts"), site.numbers(node, 2, "ends")
    axes, steps = site.numbers(node, 3, "axes"), site.numbers(node, 4, "steps")
    shape = site.shape(node.input[0])
    computed = any(site.constant(name) is None for name in node.input[3:] if name)
    if starts is None or ends is None or shape is None or computed:
        return None
    for axis, start, end in zip(axes or range(len(starts)), starts, ends, strict=False):
        size = shape[axis]
        if start != 0 or (end < END if size is None else end < size):
            return None
    return node.input[0] if all(step == 1 for step in steps or ()) else None


def _reshape(site: Site, node: onnx.NodeProto) -> str | None:
    """Find a Reshape to the shape that its input has; one dimension may be free."""
    shape, target = site.shape(node.input[0]), site.numbers(node, 1, "shape")
    if shape is None or target is None or len(shape) != len(target) or attribute(node, "allowzero", 0):
        return None
    open_axes = [axis for axis, size in enumerate(target) if size == -1]
    pairs = zip(shape, target, strict=True)
    same = all(size in (-1, 0) or size == known for known, size in pairs)
    free = [axis for axis, size in enumerate(shape) if size is None and target[axis] != 0]
    return node.input[0] if same and len(open_axes) <= 1 and set(free) <= set(open_axes) else None


def _transpose(site: Site, node: onnx.NodeProto) -> str | None:
    order = site.order(node)
    return node.input[0] if order and order == sorted(order) else None


def _neutral(site: Site, node: onnx.NodeProto) -> str | None:
    """Find the addition of zeros and the multiplication by ones, where the constant does not widen the tensor."""
    for position in (1, 0):
        value = site.constant(node.input[position])
        source = node.input[1 - position]
        if value is None or (value != NEUTRAL[node.op_type]).any() or value.dtype.kind not in "fiu":
            continue
        shape = site.shape(source)
        fits = shape is not None and value.ndim <= len(shape)
        aligned = zip(value.shape[::-1], (shape or ())[::-1], strict=False)
        if fits and all(size in (1, known) for size, known in aligned):
            ordered = position == 1 or node.op_type in ("Add", "Mul")
            return source if ordered and _same_type(site, node, source) else None
    return None


def _same_type(site: Site, node: onnx.NodeProto, source: str) -> bool:
    before, after = site.types.get(source), site.types.get(node.output[0])
    return before is not None and after is not None and before.dtype == after.dtype


def _single(_site: Site, node: onnx.NodeProto) -> str | None:
    return node.input[0] if len(node.input) == 1 else None


def _split(_site: Site, node: onnx.NodeProto) -> str | None:
    return node.input[0] if len(node.output) == 1 else None


def _repeat(site: Site, node: onnx.NodeProto) -> str | None:
    repeats = site.numbers(node, 1, "repeats")
    return node.input[0] if repeats is not None and all(r == 1 for r in repeats) else None


def _expand(site: Site, node: onnx.NodeProto) -> str | None:
    shape, target = site.shape(node.input[0]), site.numbers(node, 1, "shape")
    if shape is None or target is None or len(target) > len(shape):
        return None
    aligned = zip(target[::-1], shape[::-1], strict=False)
    return node.input[0] if all(size in (1, known) for size, known in aligned) else None


def _resize(site: Site, node: onnx.NodeProto) -> str | None:
    scales = site.constant(node.input[2]) if len(node.input) == 3 else None
    return node.input[0] if scales is not None and scales.size and (scales == 1).all() else None


def _pool(_site: Site, node: onnx.NodeProto) -> str | None:
    window = (*attribute(node, "kernel_shape", (0,)), *attribute(node, "strides", (1,)))
    padded = any(attribute(node, "pads", ())) or attribute(node, "auto_pad", b"NOTSET") != b"NOTSET"
    return node.input[0] if all(size == 1 for size in window) and not padded else None


def _idempotent(site: Site, node: onnx.NodeProto) -> str | None:
    return node.input[0] if site.maker(node.input[0], node.op_type) is not None else None


CASES: dict[str, Callable[[Site, onnx.NodeProto], str | None]] = {
    "Identity": _always,
    "Dropout": _dropout,
    "Cast": _cast,
    "Pad": _pad,
    "Slice": _slice,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Split": _split,
    "Tile": _repeat,
    "Expand": _expand,
    "Resize": _resize,
    "MaxPool": _pool,
    "AveragePool": _pool,
    **dict.fromkeys(NEUTRAL, _neutral),
    **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), _single),
    **dict.fromkeys(IDEMPOTENT, _idempotent),
}
NOTHING = Rule("no-op", tuple(CASES), find, exact=True)
