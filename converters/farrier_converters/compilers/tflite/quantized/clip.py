"""Clipping integers where they lie, and the one function that is a line between two bounds."""

from __future__ import annotations

import numpy as np

from ..builder import Builder, Held, Value
from ..node import Node
from ..ops.activation import FUSED
from ..quanta import HIGHEST, LOWEST, Quanta, exactly, quanta
from .conversions import integers


def lower_clip(b: Builder, node: Node, output: Value) -> None:
    """Rounding to a scale and then clipping is the same as clipping and then rounding.

    A bound that the scale itself does not go beyond is no operator, and one that a kernel knows is fused into it.
    """
    x = node.input(0)
    given = integers(b, x, x.scale)
    held = b.requantize(b.get(given, given.native), output.scale)
    alone = x.readers == 1 and len(given.forms) == 1 and b.untouched(held)
    low, high = _bounds(node)
    b.put(output, between(b, held, low, high, fuse=alone), given.native)


def between(b: Builder, x: Held, low: float | None, high: float | None, *, fuse: bool = False) -> Held:
    """Keep the integers of a tensor between two real numbers, as far as its scale goes beyond them."""
    scale = x.quanta
    if scale is None:
        raise ValueError("integers without a scale")
    below, above = low if _cuts(scale, low, None) else None, high if _cuts(scale, None, high) else None
    if below is None and above is None:
        return x
    kind = FUSED.get((low, high)) or FUSED.get((below, above))
    if kind:
        return x if fuse and b.activate(x, kind) else b.unary(kind, x)
    x = x if below is None else b.binary("MAXIMUM", x, below)
    return x if above is None else b.binary("MINIMUM", x, above)


def _bounds(node: Node) -> tuple[float | None, float | None]:
    if node.op == "Relu":
        return 0.0, None
    low, high = (node.scalar(name, position) for name, position in (("min", 1), ("max", 2)))
    limits = np.finfo(np.float32)
    return (
        None if low is None or low <= limits.min else low,
        None if high is None or high >= limits.max else high,
    )


def _cuts(scale: Quanta, low: float | None, high: float | None) -> bool:
    """Say whether bounds leave out integers of a scale."""
    below = low is not None and int(scale.quantize(low)) > LOWEST
    return below or (high is not None and int(scale.quantize(high)) < HIGHEST)


def lower_hard_sigmoid(b: Builder, node: Node, output: Value) -> None:
    """max(0, min(1, alpha * x + beta)): beta / alpha is added in a scale that alpha then makes the output's."""
    alpha, beta = float(node.attr("alpha", 0.2)), float(node.attr("beta", 0.5))
    x = node.input(0)
    given = integers(b, x, x.scale)
    held = b.get(given, given.native)
    b.target = quanta(output.scale.scales[0] / alpha, output.scale.zero_points[0])
    shifted = b.binary("ADD", held, _number(b, beta / alpha))
    b.target = output.scale
    result = b.binary("MUL", shifted, _number(b, alpha))
    b.put(output, between(b, result, 0.0, 1.0), given.native)


def _number(b: Builder, value: float) -> Held:
    scale = exactly(value)
    return b.constant(scale.quantize(value), quanta=scale)
