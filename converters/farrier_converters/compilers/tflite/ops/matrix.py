"""Matrix products: dense layers where the right side is constant, batches of products elsewhere; Einsum by these."""

from __future__ import annotations

import math
from functools import reduce
from string import ascii_uppercase

import numpy as np

from ....tflite import layout
from ..builder import Builder, Held, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..operands import spread


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


Term = tuple[Held, str]  # a tensor and the letters of its axes


def _einsum(b: Builder, node: Node) -> None:
    values = [node.input(i) for i in range(len(node.inputs))]
    letters, result = _letters(node.attr("equation"), [value.rank for value in values])
    if any(len(set(term)) != len(term) for term in letters):
        raise UnsupportedError(Code.ATTRIBUTE, "a letter that occurs twice in one operand")
    terms = [(b.get(value), term) for value, term in zip(values, letters, strict=True)]
    while len(terms) > 1:
        kept = set(result).union(*(set(term) for _, term in terms[2:]))
        terms = [_contracted(b, terms[0], terms[1], kept), *terms[2:]]
    held, term = _summed(b, terms[0], set(result))
    b.put(node.output, b.transpose(held, tuple(term.index(letter) for letter in result)))


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result; an ellipsis becomes capital letters of its own."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(ranks):
        raise UnsupportedError(Code.ATTRIBUTE, f"equation {equation!r} for {len(ranks)} operands")
    free = [letter for letter in ascii_uppercase if letter not in equation]
    widths = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    widest = max([w for w, term in zip(widths, terms, strict=True) if "..." in term], default=0)
    dots = "".join(free[:widest])
    filled = [
        term.replace("...", dots[widest - width :]) if "..." in term else term
        for term, width in zip(terms, widths, strict=True)
    ]
    if arrow:
        return filled, right.replace("...", dots)
    joined = "".join(filled)
    return filled, dots + "".join(sorted(c for c in set(joined) - set(dots) if joined.count(c) == 1))


def _summed(b: Builder, term: Term, kept: set[str]) -> Term:
    held, letters = term
    places = [place for place, letter in enumerate(letters) if letter not in kept]
    if not places:
        return term
    shape = [size for place, size in enumerate(held.shape) if place not in places]
    return b.op("SUM", [held, b.integers(places)], shape, keep_dims=0), "".join(
        c for c in letters if c in kept
    )


def _contracted(b: Builder, left: Term, right: Term, kept: set[str]) -> Term:
    """Multiply two tensors as a batch of matrices: letters in both that are kept are the batch."""
    x, xs = _summed(b, left, kept | set(right[1]))
    y, ys = _summed(b, right, kept | set(left[1]))
    batch = [c for c in xs if c in ys and c in kept]
    inner = [c for c in xs if c in ys and c not in kept]
    rows, columns = [c for c in xs if c not in ys], [c for c in ys if c not in xs]
    size = dict(zip(ys, y.shape, strict=True)) | {
        c: max(s, dict(zip(ys, y.shape, strict=True)).get(c, 1)) for c, s in zip(xs, x.shape, strict=True)
    }
    if not inner:
        return _outer(b, (x, xs), (y, ys), [*batch, *rows, *columns])
    sizes = [math.prod(size[c] for c in group) for group in (batch, rows, inner, columns)]
    x = b.reshape(
        b.transpose(x, tuple(xs.index(c) for c in (*batch, *rows, *inner))), (*sizes[:1], sizes[1], sizes[2])
    )
    y = b.reshape(
        b.transpose(y, tuple(ys.index(c) for c in (*batch, *inner, *columns))), (sizes[0], sizes[2], sizes[3])
    )
    made = b.op("BATCH_MATMUL", [x, y], (sizes[0], sizes[1], sizes[3]))
    letters = [*batch, *rows, *columns]
    return b.reshape(made, [size[c] for c in letters]), "".join(letters)


def _outer(b: Builder, left: Term, right: Term, letters: list[str]) -> Term:
    """Multiply elements where nothing is summed."""
    sides = []
    for held, names in (left, right):
        order = [c for c in letters if c in names]
        moved = b.transpose(held, tuple(names.index(c) for c in order))
        sides.append(b.reshape(moved, [moved.shape[order.index(c)] if c in order else 1 for c in letters]))
    return reduce(lambda x, y: b.binary("MUL", x, y), sides), "".join(letters)


MATRIX: dict[str, Handler] = {"Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
