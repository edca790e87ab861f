"""Operators that move or join data: most cost nothing, since they only say how a stored tensor is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from onnx import numpy_helper

from ....tflite import layout, schema
from ....tflite.layout import BatchError, Shape
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node, axis_of
from ..operands import common_order
from ..window import pad

PAD_MODES: dict[str, Literal["reflect", "edge", "wrap"]] = {
    "reflect": "reflect",
    "edge": "edge",
    "wrap": "wrap",
}


def reshape_to(b: Builder, x: Value, output: Value) -> None:
    """Reshape where the elements lie, as far as the axes that are joined or cut lie side by side.

    Only what is left costs a transpose, made in the order in which the groups of axes are stored. Where all axes but
    the first are joined it is put off: the dense layer that reads them can permute its weights instead.
    """
    if x.constant is not None:
        output.constant = x.constant.reshape(output.shape)
        return
    groups = _groups(x.shape, output.shape)
    order = x.native
    whole = [axis for axis in order if x.shape[axis] != 1]
    stored = sorted(groups, key=lambda group: _position(whole, group[0]))
    wanted = [axis for source, _ in stored for axis in source]
    result = tuple(axis for _, target in stored for axis in target)
    if wanted != whole and output.shape == (x.shape[0], math.prod(x.shape[1:])) and order[0] == 0:
        output.flattened = x
        return
    if wanted != whole:
        ones = [axis for axis in range(x.rank) if x.shape[axis] == 1]
        order = tuple([*ones, *wanted])
    held = b.reshape(b.get(x, order), layout.permuted(output.shape, result))
    b.put(output, held, result)


Group = tuple[list[int], list[int]]  # axes that are not of size 1 before, axes after


def _groups(before: Shape, after: Shape) -> list[Group]:
    """Match runs of axes with equal products; axes of size 1 after belong to the run that ends before them."""
    groups: list[Group] = []
    i = j = 0
    while i < len(before) or j < len(after):
        if i < len(before) and before[i] == 1:
            i += 1
            continue
        if j < len(after) and after[j] == 1:
            (groups[-1][1] if groups else groups.append(([], [])) or groups[-1][1]).append(j)
            j += 1
            continue
        source, target = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                source.append(i)
                left, i = left * before[i], i + 1
            else:
                target.append(j)
                right, j = right * after[j], j + 1
        groups.append(([a for a in source if before[a] != 1], target))
    return groups


def _position(whole: list[int], source: list[int]) -> int:
    return min((whole.index(axis) for axis in source), default=-1)


def _reshape(b: Builder, node: Node) -> None:
    reshape_to(b, node.input(0), node.output)


def _transpose(b: Builder, node: Node) -> None:
    """Only says how the stored tensor is read: no operator."""
    x = node.input(0)
    order = tuple(node.attr("perm") or range(x.rank - 1, -1, -1))
    if x.constant is not None:
        node.output.constant = x.constant.transpose(order)
        return
    if not x.forms:
        b.get(x)
    node.output.forms = {layout.relative(order, held): tensor for held, tensor in x.forms.items()}


def _concat(b: Builder, node: Node) -> None:
    values = [v for v in (node.input(i) for i in range(len(node.inputs))) if 0 not in v.shape]
    rank = node.output.rank
    axis = axis_of(int(node.attr("axis", 1)), rank)
    order = common_order(values, rank)
    held = [b.get(value, order) for value in values]
    shape = layout.permuted(node.output.shape, order)
    result = held[0] if len(held) == 1 else b.op("CONCATENATION", held, shape, axis=order.index(axis))
    b.put(node.output, result, order)


def cut(b: Builder, x: Held, ranges: Sequence[tuple[int, int | None, int] | None]) -> Held:
    """Append a STRIDED_SLICE: by axis as stored a begin, an end (None: to the border) and a step; None takes it all.

    Masks stand for whole axes, so that a free batch stays free.
    """
    begins, ends, steps, shape, masks = [], [], [], [], [0, 0]
    for axis, (size, part) in enumerate(zip(x.shape, ranges, strict=True)):
        begin, end, step = part or (0, None, 1)
        if part is None:
            masks[0] |= 1 << axis
        if end is None:
            masks[1] |= 1 << axis
        begins.append(begin)
        ends.append(0 if end is None else end)
        steps.append(step)
        shape.append(size if part is None else len(range(*slice(begin, end, step).indices(size))))
    if all(part is None for part in ranges):
        return x
    inputs = [x, b.integers(begins), b.integers(ends), b.integers(steps)]
    return b.op("STRIDED_SLICE", inputs, shape, begin_mask=masks[0], end_mask=masks[1])


def _slice(b: Builder, node: Node) -> None:
    x = node.input(0)
    starts, ends = node.numbers("starts", 1), node.numbers("ends", 2)
    if starts is None or ends is None:
        raise UnsupportedError(Code.ATTRIBUTE, "its starts or ends are left out")
    axes = node.numbers("axes", 3) or list(range(len(starts)))
    steps = node.numbers("steps", 4) or [1] * len(starts)
    ranges: list[tuple[int, int | None, int] | None] = [None] * x.rank
    places = [axis_of(axis, x.rank) for axis in axes]
    for start, end, axis, step in zip(starts, ends, places, steps, strict=True):
        ranges[axis] = _range(x.shape[axis], start, end, step)
    order = x.native
    b.put(node.output, cut(b, b.get(x, order), [ranges[axis] for axis in order]), order)


def _range(size: int, start: int, end: int, step: int) -> tuple[int, int | None, int] | None:
    first, last, stride = slice(start, end, step).indices(size)
    if stride == 1 and first == 0 and last == size:
        return None
    if layout.free(size):
        if start < -size // 2 or end < -size // 2 or start > size // 2:
            raise BatchError("rows are cut where their number counts")
        return start, None if end > size // 2 else end, step
    if stride < 0:
        return first, None if last < 0 else last, stride
    return first, last, stride


def _split(b: Builder, node: Node) -> None:
    x = node.input(0)
    axis = axis_of(int(node.attr("axis", 0)), x.rank)
    if layout.free(x.shape[axis]):
        raise BatchError("the rows are cut into parts")
    order = x.native
    outputs = [value for value in node.outputs if value is not None]
    for value in outputs:
        if 0 in value.shape:  # nothing to compute: whoever joins it with others leaves it out
            value.constant = np.zeros(value.shape, value.dtype)
    outputs = [value for value in outputs if value.constant is None]
    sizes = [value.shape[axis] for value in outputs]
    place = b.constant(np.int32(order.index(axis)))
    shapes = [layout.permuted(value.shape, order) for value in outputs]
    held = b.get(x, order)
    if len(outputs) == 1:
        parts = [held]
    elif len(set(sizes)) == 1:
        parts = b.ops("SPLIT", [place, held], shapes, held.dtype, count=len(sizes))
    else:
        parts = b.ops("SPLIT_V", [held, b.integers(sizes), place], shapes, held.dtype, count=len(sizes))
    for value, part in zip(outputs, parts, strict=True):
        b.put(value, part, order)


def _pad(b: Builder, node: Node) -> None:
    x = node.input(0)
    pads = node.numbers("pads" if "pads" in node.attributes else "paddings", 1) or []
    axes = node.numbers("axes", 3) if node.opset >= 18 else None
    axes = list(range(x.rank)) if axes is None else [axis_of(a, x.rank) for a in axes]
    amounts = [(0, 0)] * x.rank
    for i, axis in enumerate(axes):
        amounts[axis] = (pads[i], pads[len(axes) + i])
    order, mode = x.native, node.attr("mode", "constant")
    held = b.get(x, order)
    crops: list[Any] = [None] * x.rank
    for axis, (before, after) in enumerate(amounts):
        if min(before, after) < 0:
            crops[axis] = (max(-before, 0), x.shape[axis] + min(after, 0), 1)
    held = cut(b, held, [crops[axis] for axis in order])
    stored = [(max(amounts[a][0], 0), max(amounts[a][1], 0)) for a in order]
    value = node.optional(2)
    if mode == "constant" and value is not None and value.constant is None and "value" not in node.attributes:
        result = pad(b, held, stored, b.reshape(b.get(value), ()))
    elif mode == "constant":
        result = pad(b, held, stored, node.scalar("value", 2, 0.0) or 0.0)
    else:
        result = _border(b, held, stored, mode)
    b.put(node.output, result, order)


def _border(b: Builder, x: Held, amounts: list[tuple[int, int]], mode: str) -> Held:
    """Reflect is TFLite's own; what repeats the border or wraps around is joined from pieces of the tensor."""
    if mode == "reflect" and all(max(pair) < size for pair, size in zip(amounts, x.shape, strict=True)):
        shape = [size + sum(pair) if any(pair) else size for size, pair in zip(x.shape, amounts, strict=True)]
        flat = b.constant(np.array(amounts, np.int32).reshape(-1, 2))
        return b.op("MIRROR_PAD", [x, flat], shape, mode=schema.REFLECT)
    for axis, (before, after) in enumerate(amounts):
        if before or after:
            places = np.pad(np.arange(x.shape[axis]), (before, after), mode=PAD_MODES[mode])
            shape = [len(places) if a == axis else size for a, size in enumerate(x.shape)]
            x = b.op("GATHER", [x, b.integers(places)], shape, axis=axis)
    return x


def _tile(b: Builder, node: Node) -> None:
    x = node.input(0)
    times = node.numbers("repeats", 1) or []
    order = x.native
    held = b.get(x, order)
    if any(t != 1 for t in times):
        shape = layout.permuted(node.output.shape, order)
        held = b.op("TILE", [held, b.integers(times[axis] for axis in order)], shape)
    b.put(node.output, held, order)


def _expand(b: Builder, node: Node) -> None:
    """Multiplying by ones would change no number either, but copies more: BROADCAST_TO, or TILE for a free batch."""
    x, shape = node.input(0), node.output.shape
    full = Value(x.name, (1,) * (len(shape) - x.rank) + x.shape, x.dtype, quanta=x.quanta)
    b.put(full, b.reshape(b.get(x), full.shape))
    held = b.get(full)
    if held.shape != shape:
        held = broadcast_to(b, held, shape)
    b.put(node.output, held)


def broadcast_to(b: Builder, x: Held, shape: Shape) -> Held:
    """Repeat axes of size 1; rows must be as many as they were."""
    times = [1 if have == want else want for have, want in zip(x.shape, shape, strict=True)]
    if any(map(layout.free, times)):
        raise BatchError("a tensor is repeated for each row")
    return b.op("TILE", [x, b.integers(times)], shape)


def _shape_of(b: Builder, node: Node) -> None:
    x = node.input(0)
    start, end = int(node.attr("start", 0)), node.attr("end")
    sizes = x.shape[start : None if end is None else int(end)]
    node.output.constant = np.array(sizes, np.int64)


def _size_of(b: Builder, node: Node) -> None:
    node.output.constant = np.array(math.prod(node.input(0).shape), np.int64)


def _constant_of_shape(b: Builder, node: Node) -> None:
    fill = node.attributes.get("value")
    value = np.zeros(1, np.float32) if fill is None else numpy_helper.to_array(fill)
    node.output.constant = np.full(node.output.shape, value.ravel()[0], value.dtype)


def _constant(_b: Builder, node: Node) -> None:
    raise UnsupportedError(Code.DTYPE, "a constant that is no plain tensor")


SHAPES: dict[str, Handler] = {
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _reshape,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape_of,
    "Size": _size_of,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _reshape,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
