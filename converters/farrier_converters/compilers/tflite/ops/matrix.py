"""Matrix products: dense layers where the right side is constant, batches of products elsewhere."""

from __future__ import annotations

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ._operands import spread


def dense(b: Builder, x: Held, weight: np.ndarray, bias: np.ndarray | None) -> Held:
    """Append a FULLY_CONNECTED over the last axis; `weight` is [in, out]."""
    shape = (*x.shape[:-1], weight.shape[1])
    inputs = [x, b.constant(weight.T), None if bias is None else b.constant(bias)]
    options = {"keep_dims": 1} if x.rank != 2 else {}
    return b.op("FULLY_CONNECTED", inputs, shape, **options)


def source_of(b: Builder, x: Value, weight: np.ndarray) -> tuple[Held, np.ndarray]:
    """Return the left side as stored and the weights that fit it: a flattened image stays channels last."""
    image = x.flattened
    if image is None or x.forms:
        return b.get(x), weight
    order = image.native
    rows = weight.reshape(*image.shape[1:], -1)
    moved = rows.transpose(*(axis - 1 for axis in order[1:]), rows.ndim - 1)
    return b.reshape(b.get(image, order), x.shape), moved.reshape(weight.shape)


def _floats(node: Node) -> None:
    for value in node.inputs[:2]:
        if value is not None and value.dtype not in ("float32", "int8"):
            raise UnsupportedError(Code.DTYPE, f"a product of {value.dtype}")


def _gemm(b: Builder, node: Node) -> None:
    _floats(node)
    x, y, addend = node.input(0), node.input(1), node.optional(2)
    alpha, beta = float(node.attr("alpha", 1.0)), float(node.attr("beta", 1.0))
    left_flipped, right_flipped = bool(node.attr("transA", 0)), bool(node.attr("transB", 0))
    constant = None if addend is None else addend.constant
    bias = None
    columns = node.output.shape[1]
    if (
        constant is not None
        and constant.size in (1, columns)
        and (constant.ndim < 2 or constant.shape[0] == 1)
    ):
        bias = np.broadcast_to(constant.reshape(-1), (columns,)).astype(np.float32) * np.float32(beta)
    if y.constant is not None:
        weight = (y.constant.T if right_flipped else y.constant).astype(np.float32) * np.float32(alpha)
        if left_flipped:
            held = b.transpose(b.get(x), (1, 0))
        else:
            held, weight = source_of(b, x, weight)
        result = dense(b, held, _narrow(y.constant, weight), bias)
    else:
        result = _product(b, b.get(x), b.get(y), node.output.shape, (left_flipped, right_flipped))
        result = result if alpha == 1 else b.binary("MUL", result, alpha)
        result = result if bias is None else b.binary("ADD", result, b.constant(bias))
    if addend is not None and bias is None:
        other = spread(b, addend, 2, layout.identity(2))
        result = b.binary("ADD", result, other if beta == 1 else b.binary("MUL", other, beta))
    b.put(node.output, result)


def _narrow(original: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Keep weights in the type that they are stored in."""
    return weight.astype(original.dtype)


def _product(b: Builder, x: Held, y: Held, shape: layout.Shape, flipped: tuple[bool, bool]) -> Held:
    return b.op("BATCH_MATMUL", [x, y], shape, adjoint_x=int(flipped[0]), adjoint_y=int(flipped[1]))


def _matmul(b: Builder, node: Node) -> None:
    _floats(node)
    x, y = node.input(0), node.input(1)
    if y.constant is not None and y.rank == 2 and x.rank >= 2:
        held, weight = source_of(b, x, y.constant)
        b.put(node.output, dense(b, held, weight, None))
        return
    if x.rank == 0 or y.rank == 0:
        raise UnsupportedError(Code.RANK, "a product of scalars")
    left, right = b.get(x), b.get(y)
    if x.rank == 1:
        left = b.reshape(left, (1, *x.shape))
    if y.rank == 1:
        right = b.reshape(right, (*y.shape, 1))
    shape = (*layout.broadcast(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    left, right = (b.reshape(h, (1,) * (len(shape) - h.rank) + h.shape) for h in (left, right))
    result = _product(b, left, right, shape, (False, False))
    b.put(node.output, b.reshape(result, node.output.shape))


MATRIX: dict[str, Handler] = {"Gemm": _gemm, "MatMul": _matmul}
