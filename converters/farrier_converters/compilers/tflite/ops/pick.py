"""Operators that pick elements by index, or put them there."""

from __future__ import annotations

import math

import numpy as np

from ....tflite import layout
from ....tflite.layout import Order
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node, axis_of
from .shapes import cut

INDICES = ("int32", "int64")
MAX_ROUNDS = 64  # scatters that one with repeated indices is taken apart into


def positive(b: Builder, value: Value, size: int, order: Order | None = None) -> Held:
    """Return indices counted from the front; computed ones may be negative, so that they are wrapped."""
    if value.constant is not None:
        wrapped = np.where(value.constant < 0, value.constant + size, value.constant)
        return b.constant(wrapped.astype(np.int32).transpose(order or range(value.rank)))
    if value.dtype not in INDICES or layout.free(size):
        raise UnsupportedError(Code.DTYPE, f"indices of {value.dtype} along {size} elements")
    held = b.get(value, order)
    return b.op("FLOOR_MOD", [held, b.constant(size, value.dtype)], held.shape)


def _gather(b: Builder, node: Node) -> None:
    x, indices = node.input(0), node.input(1)
    axis = axis_of(int(node.attr("axis", 0)), x.rank)
    order = x.native if indices.rank < 2 else layout.identity(x.rank)
    place, held = order.index(axis), b.get(x, order)
    where = positive(b, indices, x.shape[axis])
    shape = (*held.shape[:place], *where.shape, *held.shape[place + 1 :])
    result = b.op("GATHER", [held, where], shape, held.dtype, axis=place)
    if indices.rank == 0:
        left = [a for a in order if a != axis]
        order = tuple(sorted(left).index(a) for a in left)
    elif indices.rank > 1:
        order = layout.identity(len(shape))
    b.put(node.output, result, order)


def _gather_elements(b: Builder, node: Node) -> None:
    """With its axis last, each row of indices picks from its own row: a gather whose other axes are batches."""
    x, indices = node.input(0), node.input(1)
    axis = axis_of(int(node.attr("axis", 0)), x.rank)
    order = (*(a for a in range(x.rank) if a != axis), axis)
    if any(layout.free(h) and not layout.free(w) for h, w in zip(x.shape, indices.shape, strict=True)):
        raise layout.BatchError("a fixed number of rows is picked from")
    where = positive(b, indices, x.shape[axis], order)
    ranges = [
        None if have == want else (0, want, 1) for have, want in zip(x.shape, indices.shape, strict=True)
    ]
    ranges[axis] = None
    held = cut(b, b.get(x, order), [ranges[a] for a in order])
    last = x.rank - 1
    result = b.op("GATHER", [held, where], where.shape, held.dtype, axis=last, batch_dims=last)
    b.put(node.output, result, order)


def _coordinates(b: Builder, indices: Held, shape: layout.Shape, axis: int) -> Held:
    """Return the whole coordinates of each element whose place along one axis an index gives: [*shape, rank]."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    data = b.data(indices)
    if data is not None:
        grid[..., axis] = data
        return b.constant(grid.astype(np.int32))
    columns = [b.constant(grid[..., a : a + 1].astype(indices.dtype)) for a in range(len(shape))]
    columns[axis] = b.reshape(indices, (*shape, 1))
    return b.op("CONCATENATION", columns, (*shape, len(shape)), axis=len(shape))


def _gather_nd(b: Builder, node: Node) -> None:
    x, indices = node.input(0), node.input(1)
    batches = int(node.attr("batch_dims", 0))
    where = _wrapped(b, indices, x.shape[batches : batches + indices.shape[-1]])
    if batches:
        lead = indices.shape[:batches]
        grid = np.stack(np.meshgrid(*map(np.arange, lead), indexing="ij"), -1)
        grid = grid.reshape(*lead, *(1,) * (indices.rank - 1 - batches), batches)
        grid = np.broadcast_to(grid, (*indices.shape[:-1], batches))
        whole = (*indices.shape[:-1], batches + indices.shape[-1])
        lead_held = b.constant(grid.astype(where.dtype))
        where = b.op("CONCATENATION", [lead_held, where], whole, axis=indices.rank - 1)
    shape = (*where.shape[:-1], *x.shape[where.shape[-1] :])
    b.put(node.output, b.op("GATHER_ND", [b.get(x), where], shape, x.dtype))


def _wrapped(b: Builder, indices: Value, sizes: layout.Shape) -> Held:
    """Return coordinates counted from the front."""
    if indices.constant is not None:
        return b.constant(np.mod(indices.constant, np.array(sizes)).astype(np.int32))
    held = b.get(indices)
    return b.op("FLOOR_MOD", [held, b.constant(np.array(sizes), held.dtype)], held.shape)


def _scatter_nd(b: Builder, node: Node) -> None:
    x, indices, updates = (node.input(i) for i in range(3))
    depth = indices.shape[-1]
    where = _wrapped(b, indices, x.shape[:depth])
    where = b.reshape(where, (math.prod(where.shape[:-1]), depth))
    values = b.reshape(b.get(updates), (where.shape[0], *x.shape[depth:]))
    b.put(node.output, _scatter(b, node, b.get(x), where, values))


def _scatter_elements(b: Builder, node: Node) -> None:
    x, indices, updates = (node.input(i) for i in range(3))
    axis = axis_of(int(node.attr("axis", 0)), x.rank)
    where = _coordinates(b, positive(b, indices, x.shape[axis]), indices.shape, axis)
    where = b.reshape(where, (math.prod(indices.shape), x.rank))
    values = b.reshape(b.get(updates), (where.shape[0],))
    b.put(node.output, _scatter(b, node, b.get(x), where, values))


def _scatter(b: Builder, node: Node, x: Held, where: Held, values: Held) -> Held:
    """Put `values` at rows of coordinates. TFLite's own adds up where coordinates repeat, into zeros."""
    kind = node.attr("reduction", "none")
    if x.dtype not in ("float32", "int32", "int64"):
        raise UnsupportedError(Code.DTYPE, f"a scatter into {x.dtype}")
    if kind == "add":
        return b.binary("ADD", x, _scattered(b, where, values, x))
    if kind != "none" and b.data(where) is None:
        raise UnsupportedError(Code.VALUE, f"reduction {kind!r} at computed indices, which may repeat")
    for place, value in _rounds(b, where, values):
        ones = b.constant(np.ones(value.shape, value.dtype))
        hit = b.binary("GREATER", _scattered(b, place, ones, x), 0, "bool")
        new = _scattered(b, place, value, x)
        if kind != "none":
            new = b.binary({"mul": "MUL", "max": "MAXIMUM", "min": "MINIMUM"}[kind], x, new)
        x = b.op("SELECT_V2", [hit, new, x], x.shape, x.dtype)
    return x


def _scattered(b: Builder, where: Held, values: Held, like: Held) -> Held:
    index = b.cast(where, "int32") if b.data(where) is None else where
    return b.op("SCATTER_ND", [index, values, b.integers(like.shape)], like.shape, like.dtype)


def _rounds(b: Builder, where: Held, values: Held) -> list[tuple[Held, Held]]:
    """Take a scatter apart into ones whose coordinates do not repeat; computed ones may not, says ONNX."""
    data = b.data(where)
    if data is None:
        return [(where, values)]
    seen: dict[bytes, int] = {}
    turns = []
    for row in data:
        turns.append(seen.get(row.tobytes(), 0))
        seen[row.tobytes()] = turns[-1] + 1
    if max(turns, default=0) == 0:
        return [(where, values)]
    if max(turns) >= MAX_ROUNDS:
        raise UnsupportedError(Code.ATTRIBUTE, f"indices that repeat more than {MAX_ROUNDS} times")
    result = []
    for turn in range(max(turns) + 1):
        rows = [row for row, t in enumerate(turns) if t == turn]
        part = b.op(
            "GATHER", [values, b.integers(rows)], (len(rows), *values.shape[1:]), values.dtype, axis=0
        )
        result.append((b.constant(data[rows]), part))
    return result


def _one_hot(b: Builder, node: Node) -> None:
    """Indices may be negative, and may lie outside: such a row has no hot element."""
    indices, depth = node.input(0), int(node.constant(1).ravel()[0])
    axis = axis_of(int(node.attr("axis", -1)), indices.rank + 1)
    off, on = _two(b, node.input(2))
    held = b.get(indices)
    if held.dtype == "float32":
        held = b.cast(held, "int32")
    negative = b.binary("LESS", held, 0, "bool")
    shifted = b.op("SELECT_V2", [negative, b.binary("ADD", held, depth), held], held.shape, held.dtype)
    shape = (*indices.shape[:axis], depth, *indices.shape[axis:])
    place = -1 if axis == indices.rank else axis
    inputs = [b.cast(shifted, "int32"), b.constant(np.int32(depth)), on, off]
    b.put(node.output, b.op("ONE_HOT", inputs, shape, on.dtype, axis=place))


def _two(b: Builder, values: Value) -> tuple[Held, Held]:
    if values.constant is not None:
        return b.constant(values.constant[0]), b.constant(values.constant[1])
    off, on = b.ops("UNPACK", [b.get(values)], [(), ()], values.dtype, count=2, axis=0)
    return off, on


def _top_k(b: Builder, node: Node) -> None:
    """TFLite's is of the largest along the last axis, sorted, and the first of equals comes first, as in ONNX."""
    x, count = node.input(0), int(node.constant(1).ravel()[0])
    axis = axis_of(int(node.attr("axis", -1)), x.rank)
    if layout.free(x.shape[axis]):
        raise layout.BatchError("some rows are chosen among all")
    order = (*(a for a in range(x.rank) if a != axis), axis)
    held = b.get(x, order)
    smallest = not node.attr("largest", 1)
    if smallest:
        if x.dtype != "float32":
            raise UnsupportedError(Code.DTYPE, f"the smallest of {x.dtype}")
        held = b.unary("NEG", held)
    shape = (*held.shape[:-1], count)
    inputs = [held, b.constant(np.int32(count))]
    values, places = b.typed_ops("TOPK_V2", inputs, [(shape, x.dtype), (shape, "int32")])
    if smallest:
        values = b.unary("NEG", values)
    for output, tensor in zip(node.outputs, (values, b.cast(places, "int64")), strict=False):
        if output is not None:
            b.put(output, tensor, order)


def _compress(b: Builder, node: Node) -> None:
    x = node.input(0)
    places = np.flatnonzero(node.constant(1))
    axis = node.attr("axis")
    held = b.get(x) if axis is not None else b.reshape(b.get(x), (math.prod(x.shape),))
    place = 0 if axis is None else axis_of(int(axis), x.rank)
    shape = [len(places) if p == place else size for p, size in enumerate(held.shape)]
    b.put(node.output, b.op("GATHER", [held, b.integers(places)], shape, held.dtype, axis=place))


def _reverse_sequence(b: Builder, node: Node) -> None:
    x = node.input(0)
    axes = {"sequence_axis": int(node.attr("time_axis", 0)), "batch_axis": int(node.attr("batch_axis", 1))}
    b.put(node.output, b.op("REVERSE_SEQUENCE", [b.get(x), b.get(node.input(1))], x.shape, **axes))


def _trilu(b: Builder, node: Node) -> None:
    x = node.input(0)
    k = 0 if node.optional(1) is None else int(node.constant(1).ravel()[0])
    kept = np.ones(x.shape[-2:], bool)
    kept = np.triu(kept, k) if node.attr("upper", 1) else np.tril(kept, k)
    held = b.get(x)
    zero = b.constant(0, x.dtype)
    b.put(node.output, b.op("SELECT_V2", [b.constant(kept), held, zero], held.shape, held.dtype))


def _range(b: Builder, node: Node) -> None:
    """Reached where an end is computed; others are constants by then."""
    raise UnsupportedError(Code.SHAPE, "its number of elements is only known when it runs")


def _eye(b: Builder, node: Node) -> None:
    rows, columns = node.input(0).shape
    node.output.constant = np.eye(rows, columns, int(node.attr("k", 0)), dtype=node.output.dtype)


PICK: dict[str, Handler] = {
    "Compress": _compress,
    "EyeLike": _eye,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "Range": _range,
    "ReverseSequence": _reverse_sequence,
    "Scatter": _scatter_elements,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
    "Trilu": _trilu,
}
