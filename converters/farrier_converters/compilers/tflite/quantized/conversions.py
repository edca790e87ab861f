"""Quantizers and dequantizers: most say only how a stored tensor is read, and become no operator."""

from __future__ import annotations

import numpy as np

from ..builder import Builder, Value
from ..errors import Code, UnsupportedError
from ..node import Handler, Node
from ..quanta import Quanta
from .parameters import real, signed

BIASES = ("int32",)


def integers(b: Builder, value: Value, quanta: Quanta) -> Value:
    """Return the 8-bit integers that stand for real numbers in a scale: those that are there, or new ones."""
    if value.integers is not None and value.integers.quanta == quanta:
        return value.integers
    made = Value(value.name, value.known_shape, "int8", value.readers, quanta=quanta)
    if value.constant is not None:
        made.constant = quanta.quantize(value.constant)
    else:
        source = value if value.forms or value.integers is None else value.integers
        b.put(made, b.requantize(b.get(source, source.native), quanta), source.native)
    if value.quanta == quanta:
        value.integers = made
    return made


def _quantize(b: Builder, node: Node) -> None:
    x, result = node.input(0), node.output
    if result.quanta is None or not result.quanta.single:
        raise UnsupportedError(
            Code.DTYPE, "it quantizes to other than 8 bits, in blocks or with computed scales"
        )
    found = integers(b, x, result.quanta)
    result.dtype, result.forms, result.flattened = "int8", found.forms, found.flattened
    result.constant = found.constant


def _dequantize(_b: Builder, node: Node) -> None:
    x, result = node.input(0), node.output
    if x.constant is None:
        if x.quanta is None or result.quanta is None or not result.quanta.single:
            raise UnsupportedError(
                Code.DTYPE, "it reads other than 8 bits, in blocks or with computed scales"
            )
        result.integers = x
        return
    scale = node.constant(1)
    zero_point = None if node.optional(2) is None else node.constant(2)
    axis, block = int(node.attr("axis", 1)), int(node.attr("block_size", 0))
    result.constant = real(x.constant, scale, zero_point, axis=axis, block=block)
    if result.quanta is not None:
        result.integers = Value(x.name, x.shape, "int8", constant=signed(x.constant), quanta=result.quanta)
    elif x.constant.dtype.name in BIASES and not block and (zero_point is None or not zero_point.any()):
        scales = tuple(np.asarray(scale, np.float32).ravel().tolist())
        sums = Quanta(scales, (0,) * len(scales))
        result.integers = Value(x.name, x.shape, x.constant.dtype.name, constant=x.constant, quanta=sums)


CONVERSIONS: dict[str, Handler] = {"QuantizeLinear": _quantize, "DequantizeLinear": _dequantize}
