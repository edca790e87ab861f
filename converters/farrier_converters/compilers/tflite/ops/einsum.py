"""Sums over products of tensors, named by the letters of their axes."""

from __future__ import annotations

import math
from functools import reduce
from string import ascii_uppercase

from ..builder import Builder, Held
from ..errors import Code, UnsupportedError
from ..node import Handler, Node

Term = tuple[Held, str]  # a tensor and the letters of its axes


def _einsum(b: Builder, node: Node) -> None:
    values = [node.input(i) for i in range(len(node.inputs))]
    letters, result = _letters(node.attr("equation"), [value.rank for value in values])
    if any(len(set(term)) != len(term) for term in letters):
        raise UnsupportedError(Code.ATTRIBUTE, "a letter that occurs twice in one operand")
    terms = [(b.get(value), term) for value, term in zip(values, letters, strict=True)]
    while len(terms) > 1:
        kept = set(result).union(*(set(term) for _, term in terms[2:]))
        terms = [_product(b, terms[0], terms[1], kept), *terms[2:]]
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


def _product(b: Builder, left: Term, right: Term, kept: set[str]) -> Term:
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


EINSUM: dict[str, Handler] = {"Einsum": _einsum}
