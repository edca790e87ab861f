"""Reductions over axes."""

from __future__ import annotations

from functools import partial

import numpy as np
import onnx

from ....tflite import layout
from ....tflite.layout import NCHW
from ..builder import Builder, Value
from ._operation import Handler, Operation


def kept_order(order: layout.Order, axes: set[int]) -> layout.Order:
    """Return the order of what is left when `axes` (of the file) vanish."""
    left = [a for a in order if a not in axes]
    rank = {axis: i for i, axis in enumerate(sorted(left))}
    return tuple(rank[a] for a in left)


def _reduce(onnx_op: str, b: Builder, op: Operation) -> None:
    x = op.input(0)
    axes = sorted({op.axis(a, x.rank) for a in op.integers(1)})
    keep = bool(op.options["keep_dims"])
    shape = [1 if i in axes else s for i, s in enumerate(x.shape)]
    if not keep:
        shape = [s for i, s in enumerate(shape) if i not in axes]
    if onnx_op == "ReduceMean" and axes == [1, 2] and x.rank == 4:
        _pool_all(b, op.output, x, keep)
        return
    if any(layout.free(x.shape[a]) for a in axes):
        raise layout.BatchError("it mixes rows")
    native = x.native
    stored = sorted(native.index(a) for a in axes)
    source = b.get(x, native)
    if onnx_op == "ReduceSum":
        name = b.node(onnx_op, [source, b.integers("axes", stored)], op.output.name, keepdims=int(keep))
    else:
        name = b.node(onnx_op, [source], op.output.name, axes=stored, keepdims=int(keep))
    b.put(op.output, name, native if keep else kept_order(native, set(axes)), shape)


def _pool_all(b: Builder, output: Value, x: Value, keep: bool) -> None:
    """The mean over an image is a pooling, which engines have integer kernels for."""
    n, _, _, channels = x.shape
    result = output.name if keep else f"{output.name}/pool"
    name = b.node("GlobalAveragePool", [b.get(x, NCHW)], result)
    if keep:
        b.put(output, name, NCHW, (n, 1, 1, channels))
    else:
        b.put(output, b.node("Flatten", [name], output.name, axis=1), None, (n, channels))


def _arg(onnx_op: str, b: Builder, op: Operation) -> None:
    x = op.input(0)
    axis = op.axis(op.integers(1)[0], x.rank)
    if layout.free(x.shape[axis]):
        raise layout.BatchError("it mixes rows")
    dtype = op.output.dtype
    result = op.output.name if dtype == "int64" else f"{op.output.name}/wide"
    name = b.node(onnx_op, [b.get(x, x.native)], result, axis=x.native.index(axis), keepdims=0)
    if dtype != "int64":
        kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        name = b.node("Cast", [name], op.output.name, to=kind)
    b.put(op.output, name, kept_order(x.native, {axis}), [s for i, s in enumerate(x.shape) if i != axis])


REDUCE: dict[str, Handler] = {
    "MEAN": partial(_reduce, "ReduceMean"),
    "SUM": partial(_reduce, "ReduceSum"),
    "REDUCE_MAX": partial(_reduce, "ReduceMax"),
    "REDUCE_MIN": partial(_reduce, "ReduceMin"),
    "REDUCE_PROD": partial(_reduce, "ReduceProd"),
    "ARG_MAX": partial(_arg, "ArgMax"),
    "ARG_MIN": partial(_arg, "ArgMin"),
}
