"""Operators that move or join data: most cost nothing, since they only say how a stored tensor is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from ....tflite import layout
from ..builder import Builder, Sides, Value
from ._operation import Handler, Operation, UnsupportedError


def reshape_to(b: Builder, x: Value, output: Value, target: Sequence[int]) -> None:
    """Reshape in the file's order.

    Where only axes of size 1 come or go, the stored order stays; where a stored form lays the elements out alike, it is
    used as it is. Only what is left costs a transpose.
    """
    shape = layout.reshaped(x.shape, target)
    if x.origin is not None and x.origin.shape == shape:  # there and back
        output.shape, output.forms = shape, dict(x.origin.forms)
        return
    kept = None if x.constant is not None else layout.carried(x.shape, x.native, shape)
    if kept is not None:
        output.origin = x
        stored = b.reshape(b.get(x, x.native), layout.permuted(shape, kept), output.name)
        b.put(output, stored, kept, shape)
        _carry(b, x, output)
        return
    identity = layout.identity(x.rank)
    held = next((o for o in x.forms if layout.only_relabels(x.shape, o, identity)), None)
    if held is None and x.constant is None and x.native[0] == 0 and shape == _flat(x):
        output.flattened = x
    source = b.get(x) if held is None else x.forms[held]
    b.put(output, b.reshape(source, shape, output.name), None, shape)


def _flat(x: Value) -> layout.Shape:
    return x.shape[0], math.prod(x.shape[1:])


def _carry(b: Builder, x: Value, output: Value) -> None:
    """A sequence that becomes an image of height one, or the reverse, remembers what came before it."""
    if x.rank == 3 and output.shape == (x.shape[0], 1, *x.shape[1:]):
        output.padded = _lifted(b, x.padded)
        if x.blocked is not None and (source := _lifted(b, (x.blocked[0], x.blocked[2]))):
            output.blocked = (source[0], x.blocked[1], source[1])
    undo = x.unblock
    if undo is not None and x.rank == 4 and output.shape == (x.shape[0], *x.shape[2:]):

        def unblock(result: Value, crops: Sides) -> None:
            image = Value(f"{result.name}/image", (), result.dtype)
            undo(image, crops)
            reshape_to(b, image, result, (image.shape[0], *image.shape[2:]))

        output.unblock = unblock


def _lifted(b: Builder, source: tuple[Value, Sides] | None) -> tuple[Value, Sides] | None:
    if source is None:
        return None
    x, sides = source
    image = Value(f"{x.name}/image", (), x.dtype)
    reshape_to(b, x, image, (x.shape[0], 1, *x.shape[1:]))
    return image, sides


def _reshape(b: Builder, op: Operation) -> None:
    target = op.integers(1) if op.optional(1) is not None else op.options["shape"]
    reshape_to(b, op.input(0), op.output, target)


def _squeeze(b: Builder, op: Operation) -> None:
    x = op.input(0)
    axes = {op.axis(a, x.rank) for a in op.options["axes"]} or {i for i, s in enumerate(x.shape) if s == 1}
    if any(x.shape[a] != 1 for a in axes):
        if any(layout.free(x.shape[a]) for a in axes):
            raise layout.BatchError("it drops the axis of the rows")
        raise ValueError("it drops an axis that is not of size 1")
    reshape_to(b, x, op.output, [s for i, s in enumerate(x.shape) if i not in axes])


def _expand_dims(b: Builder, op: Operation) -> None:
    x = op.input(0)
    axis = op.axis(op.integers(1)[0], x.rank + 1)
    reshape_to(b, x, op.output, [*x.shape[:axis], 1, *x.shape[axis:]])


def _concatenation(b: Builder, op: Operation) -> None:
    values = [op.input(i) for i in range(len(op.inputs))]
    rank = values[0].rank
    axis = op.axis(op.options["axis"], rank)
    for value in values:
        if value.rank != rank or any(value.shape[i] != values[0].shape[i] for i in range(rank) if i != axis):
            kind = layout.BatchError if any(layout.free(s) for v in values for s in v.shape) else ValueError
            raise kind("the parts do not fit together")
    orders = [v.native for v in values if v.constant is None]
    moved = [o for o in orders if o != layout.identity(rank)]
    order = next(iter([*moved, *orders]), layout.identity(rank))
    shape = list(values[0].shape)
    shape[axis] = sum(v.shape[axis] for v in values)
    result = op.output.name if not op.activation else f"{op.output.name}/concat"
    name = b.node("Concat", [b.get(v, order) for v in values], result, axis=order.index(axis))
    b.put(op.output, b.activation(op.activation, name, op.output.name), order, shape)


def _pack(b: Builder, op: Operation) -> None:
    values = [op.input(i) for i in range(len(op.inputs))]
    axis = op.axis(op.options["axis"], values[0].rank + 1)
    shape = [*values[0].shape[:axis], 1, *values[0].shape[axis:]]
    if any(v.shape != values[0].shape for v in values):
        raise ValueError("the parts have different shapes")
    parts = [b.reshape(b.get(v), shape, f"{v.name}/part") for v in values]
    shape[axis] = len(values)
    b.put(op.output, b.node("Concat", parts, op.output.name, axis=axis), None, shape)


def _pad(mode: str, b: Builder, op: Operation) -> None:
    x, pads = op.input(0), op.constant(1)
    if pads.shape != (x.rank, 2) or pads.min() < 0:
        raise ValueError("its amounts do not fit the tensor")
    if any(layout.free(s) and sum(p) for s, p in zip(x.shape, pads.tolist(), strict=True)):
        raise layout.BatchError("it adds rows")
    value = op.optional(2) if op.name == "PADV2" else None
    fill = float(op.constant(2).ravel()[0]) if value is not None else 0.0
    order = x.native
    amounts = [int(pads[a, side]) for side in (0, 1) for a in order]
    kind = _mirror(op, pads) if mode == "mirror" else mode
    inputs = [b.get(x, order), b.integers("pads", amounts)]
    if kind == "constant":
        inputs.append(b.constant("fill", np.array(fill, x.dtype)))
    name = b.node("Pad", inputs, op.output.name, mode=kind)
    b.put(op.output, name, order, [s + int(sum(p)) for s, p in zip(x.shape, pads, strict=True)])
    if kind == "constant" and fill == 0 and x.rank in (3, 4) and not pads[[0, -1]].any():
        top, bottom = pads[1].tolist() if x.rank == 4 else (0, 0)
        left, right = pads[-2].tolist()
        op.output.padded = (x, (top, left, bottom, right))


def _mirror(op: Operation, pads: np.ndarray) -> str:
    if op.options["mode"] == 0:
        return "reflect"
    if pads.max() <= 1:
        return "edge"  # the same, as long as only the border itself is repeated
    raise UnsupportedError("it mirrors the border itself by more than one element")


def _transpose(b: Builder, op: Operation) -> None:
    """Only says how the stored tensor is read: no node."""
    x, order = op.input(0), op.integers(1)
    if sorted(order) != list(range(x.rank)):
        raise ValueError(f"{order} is no permutation")
    if not x.forms:
        b.get(x)
    shape = layout.permuted(x.shape, tuple(order))
    b.put(op.output, "", None, shape)
    op.output.forms = {layout.relative(tuple(order), held): name for held, name in x.forms.items()}


def _tile(b: Builder, op: Operation) -> None:
    x, times = op.input(0), op.integers(1)
    if len(times) != x.rank:
        raise ValueError("its amounts do not fit the tensor")
    if any(layout.free(s) and t != 1 for s, t in zip(x.shape, times, strict=True)):
        raise layout.BatchError("it repeats rows")
    name = b.node("Tile", [b.get(x), b.integers("times", times)], op.output.name)
    b.put(op.output, name, None, [s * t for s, t in zip(x.shape, times, strict=True)])


def _broadcast_to(b: Builder, op: Operation) -> None:
    x, shape = op.input(0), op.integers(1)
    name = b.node("Expand", [b.get(x), b.integers("shape", shape)], op.output.name)
    b.put(op.output, name, None, layout.broadcast(x.shape, shape))


def _fill(b: Builder, op: Operation) -> None:
    """A constant with as many rows as the input; all others are folded."""
    rows, *sizes = op.integers(0)
    if rows != layout.BATCH or any(map(layout.free, sizes)):
        raise layout.BatchError("the number of rows is used as a value")
    value = op.constant(1).ravel()[:1].astype(op.output.dtype).reshape((1,) * (1 + len(sizes)))
    count = b.node("Shape", [b.first_input], f"{op.output.name}/rows", start=0, end=1)
    shape = b.node("Concat", [count, b.integers("sizes", sizes)], f"{op.output.name}/shape", axis=0)
    name = b.node("Expand", [b.constant("fill", value), shape], op.output.name)
    b.put(op.output, name, None, (rows, *sizes))


def _shape(_b: Builder, op: Operation) -> None:
    """The shape is known while importing: a constant that may hold the number of rows."""
    sizes = np.array(op.input(0).shape, np.int64)
    op.output.constant, op.output.shape = sizes, sizes.shape


SHAPES: dict[str, Handler] = {
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "EXPAND_DIMS": _expand_dims,
    "CONCATENATION": _concatenation,
    "PACK": _pack,
    "PAD": partial(_pad, "constant"),
    "PADV2": partial(_pad, "constant"),
    "MIRROR_PAD": partial(_pad, "mirror"),
    "TRANSPOSE": _transpose,
    "TILE": _tile,
    "BROADCAST_TO": _broadcast_to,
    "SHAPE": _shape,
    "FILL": _fill,
}
