"""Dense layers and matrix products."""

from __future__ import annotations

import math

import numpy as np

from ....tflite import layout
from ..builder import Builder, Value
from ._operation import Handler, Operation, UnsupportedError


def _fully_connected(b: Builder, op: Operation) -> None:
    """A Gemm. Behind a flattened image the weights' columns are permuted, so that the image stays NCHW."""
    x, weight = op.input(0), op.input(1)
    units, depth = weight.shape
    if op.options["weights_format"]:
        raise UnsupportedError("its weights are shuffled for one kind of processor")
    total = math.prod(x.shape)
    if total % depth:
        raise ValueError(f"{list(x.shape)} does not fit {depth} columns of weights")
    keep = op.options["keep_dims"] and x.rank > 2
    shape = (*x.shape[:-1], units) if keep else (total // depth, units)
    result = op.output.name if not op.activation else f"{op.output.name}/dense"
    bias = op.optional(2)
    if keep and x.shape[-1] == depth:
        name = _batched(b, op, x, weight, result)
    else:
        rows, columns = _rows(b, x, depth, weight)
        extra = [] if bias is None else [b.get(bias)]
        name = b.node("Gemm", [rows, columns, *extra], result, transB=1)
        if keep:
            name = b.reshape(name, shape, f"{result}/shaped")
    b.put(op.output, b.activation(op.activation, name, op.output.name), None, shape)


def _batched(b: Builder, op: Operation, x: Value, weight: Value, result: str) -> str:
    bias = op.optional(2)
    name = b.node(
        "MatMul", [b.get(x), b.get(weight, (1, 0))], result if bias is None else f"{result}/product"
    )
    return name if bias is None else b.node("Add", [name, b.get(bias)], result)


def _rows(b: Builder, x: Value, depth: int, weight: Value) -> tuple[str, str]:
    """Return the input as a matrix and the weights that belong to it."""
    image = x.flattened if x.flattened is not None else x
    per_row = math.prod(image.shape[1:])
    order = image.native
    plain = layout.only_relabels(image.shape, order, layout.identity(image.rank))
    if not plain and order[0] == 0 and per_row == depth and weight.constant is not None:
        name = b.node("Flatten", [b.get(image, order)], f"{x.name}/flat", axis=1)
        cube = weight.constant.reshape(-1, *image.shape[1:]).transpose(order)
        columns = np.ascontiguousarray(cube).reshape(-1, depth).astype(np.float32, copy=False)
        return name, b.constant(weight.name, columns)
    columns = b.get(weight)
    if x.rank == 2 and x.shape[1] == depth:
        return b.get(x), columns
    return b.reshape(b.get(x), (math.prod(x.shape) // depth, depth), f"{x.name}/rows"), columns


def _batch_matmul(b: Builder, op: Operation) -> None:
    a, z = op.input(0), op.input(1)
    names, shapes = [], []
    for value, adjoint in ((a, op.options["adjoint_x"]), (z, op.options["adjoint_y"])):
        order = layout.identity(value.rank)
        if adjoint:
            order = (*order[:-2], order[-1], order[-2])
        names.append(b.get(value, order))
        shapes.append(layout.permuted(value.shape, order))
    if min(a.rank, z.rank) < 2 or shapes[0][-1] != shapes[1][-2]:
        raise ValueError("the matrices do not fit")
    lead = layout.broadcast(shapes[0][:-2], shapes[1][:-2])
    name = b.node("MatMul", names, op.output.name)
    b.put(op.output, name, None, (*lead, shapes[0][-2], shapes[1][-1]))


MATRIX: dict[str, Handler] = {"FULLY_CONNECTED": _fully_connected, "BATCH_MATMUL": _batch_matmul}
