"""Operators that take parts of a tensor."""

from __future__ import annotations

from collections.abc import Sequence

from ....tflite import layout
from ..builder import Builder, Value
from ._operation import Handler, Operation, UnsupportedError
from .reduce import kept_order


def _split(b: Builder, op: Operation) -> None:
    x, count = op.input(1), int(op.options["count"])
    axis = op.axis(op.integers(0)[0], x.rank)
    if count < 1 or x.shape[axis] % count or count != len(op.outputs):
        raise ValueError(f"{x.shape[axis]} cannot be split into {count} equal parts")
    _cut(b, op, x, axis, [x.shape[axis] // count] * count)


def _split_v(b: Builder, op: Operation) -> None:
    x, sizes = op.input(0), op.integers(1)
    axis = op.axis(op.integers(2)[0], x.rank)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(s for s in sizes if s != -1)
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 1 or len(sizes) != len(op.outputs):
        raise ValueError(f"{x.shape[axis]} cannot be split into {sizes}")
    _cut(b, op, x, axis, sizes)


def _cut(b: Builder, op: Operation, x: Value, axis: int, sizes: Sequence[int]) -> None:
    if layout.free(x.shape[axis]):
        raise layout.BatchError("it splits the rows")
    order = x.native
    names = b.nodes_of(
        "Split",
        [b.get(x, order), b.integers("split", sizes)],
        [value.name for value in op.outputs],
        axis=order.index(axis),
    )
    for value, name, size in zip(op.outputs, names, sizes, strict=True):
        b.put(value, name, order, [*x.shape[:axis], size, *x.shape[axis + 1 :]])


def _unpack(b: Builder, op: Operation) -> None:
    x = op.input(0)
    axis = op.axis(op.options["axis"], x.rank)
    if layout.free(x.shape[axis]) or x.shape[axis] != len(op.outputs):
        raise layout.BatchError("it takes the rows apart")
    parts = b.nodes_of(
        "Split",
        [b.get(x), b.integers("split", [1] * len(op.outputs))],
        [f"{value.name}/part" for value in op.outputs],
        axis=axis,
    )
    shape = [s for i, s in enumerate(x.shape) if i != axis]
    for value, part in zip(op.outputs, parts, strict=True):
        b.put(value, b.reshape(part, shape, value.name), None, shape)


def _strided_slice(b: Builder, op: Operation) -> None:
    x, o = op.input(0), op.options
    begin, end, step = (op.integers(i) for i in (1, 2, 3))
    if o["ellipsis_mask"] or o["new_axis_mask"] or o["offset"]:
        raise UnsupportedError("it uses a mask for an ellipsis, a new axis or an offset")
    if not len(begin) == len(end) == len(step) <= x.rank or 0 in step:
        raise ValueError("its bounds do not fit the tensor")
    ranges = [range(size) for size in x.shape]
    shrunk = set()
    for axis, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        size = x.shape[axis]
        if o["shrink_axis_mask"] >> axis & 1:
            start = first + size if first < 0 else first
            if not 0 <= start < size:
                raise ValueError("it takes an element that is not there")
            ranges[axis] = range(start, start + 1)
            shrunk.add(axis)
            continue
        low = None if o["begin_mask"] >> axis & 1 else first
        high = None if o["end_mask"] >> axis & 1 else last
        if layout.free(size) and op.fixed_rows and (low or 0, high, stride) == (0, 1, 1):
            high = None
        ranges[axis] = range(*slice(low, high, stride).indices(size))
    _take(b, op, x, ranges, shrunk)


def _slice(b: Builder, op: Operation) -> None:
    x, begin, sizes = op.input(0), op.integers(1), op.integers(2)
    if not len(begin) == len(sizes) == x.rank:
        raise ValueError("its bounds do not fit the tensor")
    ranges = []
    for size, first, count in zip(x.shape, begin, sizes, strict=True):
        all_rows = layout.free(size) and op.fixed_rows and (first, count) == (0, 1)
        last = size if count == -1 or all_rows else first + count
        if not 0 <= first < last <= size:
            raise ValueError("it reaches outside of the tensor")
        ranges.append(range(first, last))
    _take(b, op, x, ranges, set())


def _take(b: Builder, op: Operation, x: Value, ranges: list[range], shrunk: set[int]) -> None:
    """Cut `ranges` out of the file's axes; those in `shrunk` vanish."""
    order = x.native
    cut = [axis for axis, r in enumerate(ranges) if r != range(x.shape[axis])]
    if any(layout.free(x.shape[axis]) for axis in cut):
        raise layout.BatchError("it picks rows")
    shape = [len(r) for r in ranges]
    if 0 in shape:
        raise ValueError("nothing is left of the tensor")
    name = b.get(x, order)
    if cut:
        stops = [r.stop if r.stop >= 0 else -x.shape[a] - 1 for a, r in enumerate(ranges)]
        bounds = (
            [ranges[a].start for a in cut],
            [stops[a] for a in cut],
            [order.index(a) for a in cut],
            [ranges[a].step for a in cut],
        )
        result = op.output.name if not shrunk else f"{op.output.name}/slice"
        name = b.node("Slice", [name, *(b.integers("bounds", v) for v in bounds)], result)
    if shrunk:
        axes = b.integers("axes", sorted(order.index(a) for a in shrunk))
        name = b.node("Squeeze", [name, axes], op.output.name)
        order = kept_order(order, shrunk)
        shape = [s for i, s in enumerate(shape) if i not in shrunk]
    b.put(op.output, name, order, shape)


def _reverse(b: Builder, op: Operation) -> None:
    x = op.input(0)
    turned = {op.axis(a, x.rank) for a in op.integers(1)}
    backwards = [range(n - 1, -1, -1) if a in turned and n > 1 else range(n) for a, n in enumerate(x.shape)]
    _take(b, op, x, backwards, set())


def _gather(b: Builder, op: Operation) -> None:
    x, positions = op.input(0), op.input(1)
    if op.options["batch_dims"]:
        raise UnsupportedError("it gathers per row (batch_dims)")
    axis = op.axis(op.options["axis"], x.rank)
    if layout.free(x.shape[axis]):
        raise layout.BatchError("it picks rows")
    name = b.node("Gather", [b.get(x), b.get(positions)], op.output.name, axis=axis)
    b.put(op.output, name, None, [*x.shape[:axis], *positions.shape, *x.shape[axis + 1 :]])


PICK: dict[str, Handler] = {
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "UNPACK": _unpack,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "GATHER": _gather,
    "REVERSE_V2": _reverse,
}
