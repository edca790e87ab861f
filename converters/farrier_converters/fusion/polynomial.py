"""Arithmetic of a graph read as a polynomial, so that every way to write a formula is the same formula."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from ..graph.edit import standard
from .site import Site

MAX_DEPTH = 10  # of operators between a result and its symbols
MAX_DEGREE = 4  # of each product
TOLERANCE = 2e-3  # of a coefficient, relative: exporters write 1.4142 for the root of two

Powers = tuple[int, ...]  # of each symbol
Polynomial = Mapping[Powers, float]  # the coefficient of each product


def polynomial(site: Site, name: str, symbols: tuple[str, ...], depth: int = MAX_DEPTH) -> Polynomial | None:
    """Return a tensor as a polynomial in `symbols`, None where it is computed from anything else.

    Only numbers count as constants: a tensor of many elements is something else.
    """
    if name in symbols:
        return {tuple(int(symbol == name) for symbol in symbols): 1.0}
    number = site.scalar(name)
    if number is not None:
        return {(0,) * len(symbols): number}
    node = site.maker(name, "Add", "Sub", "Mul", "Div", "Pow", "Neg", "Reciprocal")
    if node is None or depth == 0:
        return None
    parts = [polynomial(site, part, symbols, depth - 1) for part in node.input]
    known = [part for part in parts if part is not None]
    return _combined(node, known) if len(known) == len(parts) else None


def _combined(node: onnx.NodeProto, parts: list[Polynomial]) -> Polynomial | None:
    if standard(node, "Neg"):
        return _times(parts[0], {(0,) * _symbols(parts[0]): -1.0})
    if standard(node, "Add"):
        return _plus(parts[0], parts[1], 1.0)
    if standard(node, "Sub"):
        return _plus(parts[0], parts[1], -1.0)
    if standard(node, "Mul"):
        return _times(parts[0], parts[1])
    divisor = _number(parts[-1])
    if standard(node, "Pow"):
        return _power(parts[0], divisor)
    if not divisor:
        return None
    one = {(0,) * _symbols(parts[-1]): 1.0 / divisor}
    return one if standard(node, "Reciprocal") else _times(parts[0], one)


def _symbols(value: Polynomial) -> int:
    return len(next(iter(value)))


def _number(value: Polynomial) -> float | None:
    constant = (0,) * _symbols(value)
    return value[constant] if set(value) == {constant} else None


def _plus(left: Polynomial, right: Polynomial, sign: float) -> Polynomial:
    result = dict(left)
    for powers, factor in right.items():
        result[powers] = result.get(powers, 0.0) + sign * factor
    return result


def _times(left: Polynomial, right: Polynomial) -> Polynomial | None:
    result: dict[Powers, float] = {}
    for a, x in left.items():
        for b, y in right.items():
            powers = tuple(i + j for i, j in zip(a, b, strict=True))
            if sum(powers) > MAX_DEGREE:
                return None
            result[powers] = result.get(powers, 0.0) + x * y
    return result


def _power(base: Polynomial, exponent: float | None) -> Polynomial | None:
    if exponent not in (1.0, 2.0, 3.0, 4.0):
        return None
    result: Polynomial | None = base
    for _ in range(int(exponent) - 1):
        result = None if result is None else _times(result, base)
    return result


def alike(found: Polynomial | None, wanted: Polynomial) -> bool:
    """Say whether two polynomials have the same coefficients, to a thousandth or two."""
    if found is None:
        return False
    return all(
        math.isclose(found.get(powers, 0.0), wanted.get(powers, 0.0), rel_tol=TOLERANCE, abs_tol=1e-6)
        for powers in {*found, *wanted}
    )
