"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ....tflite import layout, schema
from ..builder import Builder, Held
from ..node import Handler, Node, axis_of


def _axes(node: Node, rank: int) -> list[int] | None:
    """Return the axes that are reduced; None where none is, by the node's own word."""
    axes = node.numbers("axes", 1)
    if axes:
        return [axis_of(axis, rank) for axis in axes]
    return None if node.attr("noop_with_empty_axes", 0) else list(range(rank))


Step = Callable[[Builder, Held], Held]


def _nothing(_b: Builder, x: Held) -> Held:
    return x


def _square(b: Builder, x: Held) -> Held:
    return b.unary("SQUARE", x) if x.dtype == "float32" else b.binary("MUL", x, x)


def _absolute(b: Builder, x: Held) -> Held:
    return b.unary("ABS", x)


def _root(b: Builder, x: Held) -> Held:
    return b.unary("SQRT", x)


def _log(b: Builder, x: Held) -> Held:
    return b.unary("LOG", x)


def _reduce(name: str, before: Step, after: Step, b: Builder, node: Node) -> None:
    x = node.input(0)
    axes = _axes(node, x.rank)
    order = x.native
    held = before(b, b.get(x, order))
    if axes is not None and x.rank:
        held, order = reduced(b, name, held, order, axes, keep=bool(node.attr("keepdims", 1)))
    b.put(node.output, after(b, held), order)


def reduced(
    b: Builder, name: str, x: Held, order: layout.Order, axes: list[int], *, keep: bool
) -> tuple[Held, layout.Order]:
    """Reduce axes of the graph's tensor, and return what is left and its order."""
    places = sorted(order.index(axis) for axis in axes)
    if keep:
        shape = [1 if place in places else size for place, size in enumerate(x.shape)]
        return b.op(name, [x, b.integers(places)], shape, keep_dims=1), order
    shape = [size for place, size in enumerate(x.shape) if place not in places]
    left = [axis for axis in order if axis not in axes]
    names = sorted(left)
    return b.op(name, [x, b.integers(places)], shape, keep_dims=0), tuple(names.index(axis) for axis in left)


def _log_sum_exp(b: Builder, node: Node) -> None:
    """Subtract the largest first, so that nothing overflows."""
    x = node.input(0)
    axes, order = _axes(node, x.rank), x.native
    held = b.get(x, order)
    if axes is None or not x.rank:
        b.put(node.output, held, order)
        return
    largest, _ = reduced(b, "REDUCE_MAX", held, order, axes, keep=True)
    powers = b.unary("EXP", b.binary("SUB", held, largest))
    total, _ = reduced(b, "SUM", powers, order, axes, keep=True)
    result = b.binary("ADD", b.unary("LOG", total), largest)
    if not node.attr("keepdims", 1):
        left = [axis for axis in order if axis not in axes]
        result = b.reshape(result, [x.shape[axis] for axis in left])
        order = tuple(sorted(left).index(axis) for axis in left)
    b.put(node.output, result, order)


def _arg(name: str, b: Builder, node: Node) -> None:
    """TFLite takes the first of equals; the last is found from the other end."""
    x = node.input(0)
    axis = axis_of(int(node.attr("axis", 0)), x.rank)
    order = x.native
    held, place = b.get(x, order), order.index(axis)
    last = bool(node.attr("select_last_index", 0))
    if last:
        held = b.op("REVERSE_V2", [held, b.integers([place])], held.shape)
    shape = [size for p, size in enumerate(held.shape) if p != place]
    kind = {"type": schema.NUMBERS["int64"]}
    result = b.op(name, [held, b.constant(np.int32(place))], shape, "int64", **kind)
    if last:
        result = b.op("SUB", [b.constant(np.int64(x.shape[axis] - 1)), result], result.shape)
    left = [a for a in order if a != axis]
    if node.attr("keepdims", 1):
        b.put(node.output, b.reshape(result, [1 if a == axis else x.shape[a] for a in order]), order)
    else:
        b.put(node.output, result, tuple(sorted(left).index(a) for a in left))


def _cumulative(b: Builder, node: Node) -> None:
    x = node.input(0)
    axis = axis_of(int(node.constant(1).ravel()[0]), x.rank)
    order = x.native
    flags = {"exclusive": int(node.attr("exclusive", 0)), "reverse": int(node.attr("reverse", 0))}
    place = b.constant(np.int32(order.index(axis)))
    held = b.get(x, order)
    b.put(node.output, b.op("CUMSUM", [held, place], held.shape, **flags), order)


REDUCE: dict[str, Handler] = {
    "ArgMax": partial(_arg, "ARG_MAX"),
    "ArgMin": partial(_arg, "ARG_MIN"),
    "CumSum": _cumulative,
    "ReduceL1": partial(_reduce, "SUM", _absolute, _nothing),
    "ReduceL2": partial(_reduce, "SUM", _square, _root),
    "ReduceLogSum": partial(_reduce, "SUM", _nothing, _log),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": partial(_reduce, "REDUCE_MAX", _nothing, _nothing),
    "ReduceMean": partial(_reduce, "MEAN", _nothing, _nothing),
    "ReduceMin": partial(_reduce, "REDUCE_MIN", _nothing, _nothing),
    "ReduceProd": partial(_reduce, "REDUCE_PROD", _nothing, _nothing),
    "ReduceSum": partial(_reduce, "SUM", _nothing, _nothing),
    "ReduceSumSquare": partial(_reduce, "SUM", _square, _nothing),
}
