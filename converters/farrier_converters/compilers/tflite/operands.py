"""Operands of elementwise operators, brought into one order of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ...tflite import layout
from ...tflite.layout import Order
from .builder import Builder, Held, Value


def common_order(values: Sequence[Value], rank: int) -> Order:
    """Return the order that moves least: that of the largest computed operand, and of equals one that is permuted."""
    identity = layout.identity(rank)
    full = [value for value in values if value.constant is None and value.rank == rank]
    if not full:
        return identity
    return max(full, key=lambda v: (math.prod(v.shape), v.native != identity)).native


def spread(b: Builder, value: Value, rank: int, order: Order) -> Held:
    """Return an operand that broadcasts against tensors of this rank stored in this order.

    TFLite aligns shapes at their ends, as ONNX does, so that leading axes of size 1 may be missing.
    """
    missing = rank - value.rank
    if value.constant is not None:
        array = value.constant.reshape((1,) * missing + value.constant.shape).transpose(order)
        stored = array.reshape(_without_leading_ones(array.shape))
        return b.constant(stored, quanta=value.quanta if value.dtype == "int8" else None)
    if not missing:
        return b.get(value, order)
    if order == layout.identity(rank):
        return b.get(value)
    full = Value(value.name, (1,) * missing + value.shape, value.dtype, quanta=value.quanta)
    b.put(full, b.reshape(b.get(value), full.shape))
    return b.get(full, order)


def aligned(b: Builder, values: Sequence[Value], rank: int) -> tuple[Order, list[Held]]:
    """Return the order of the result and the operands in it."""
    order = common_order(values, rank)
    return order, [spread(b, value, rank, order) for value in values]


def _without_leading_ones(shape: Sequence[int]) -> tuple[int, ...]:
    sizes = list(shape)
    while sizes and sizes[0] == 1:
        del sizes[0]
    return tuple(sizes)


def number(value: Value) -> float | None:
    """Return the one value of a constant whose elements are all equal."""
    array = value.constant
    if array is None or not array.size or (array != array.flat[0]).any():
        return None
    return np.asarray(array).flat[0].item()
