"""Sizes with which a place is tried: small ones first, since a proof should cost next to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph.edit import attribute, standard
from .place import Place
from .record import Rewrite
from .site import Site

LARGE = 16  # a size beyond this is made smaller where no constant depends on it
SMALL = (11, 13, 7, 9, 15, 5, 14, 6, 12, 10)  # what takes the places of large sizes, each one once
HUGE = 1 << 16  # a size beyond this stands for any number of rows, and constants hold it and its multiples
FREE = 3  # stands for a free dimension
ANY_RANK = ("Identity", "Dropout", "Cast", "Relu", "Clip", "Abs", "Erf", "Tanh", "Sigmoid", "HardSigmoid")


class UnknownShapeError(Exception):
    """A tensor that varies has a type or rank that is not known."""


@dataclass(frozen=True)
class Trial:
    """A place with a shape for each tensor that varies; constants that hold sizes are made to fit."""

    place: Place
    shapes: Mapping[str, list[int]]


def trials(site: Site, rewrite: Rewrite, place: Place) -> Iterator[Trial]:
    """Yield ever larger trials, at last the true one; raises UnknownShapeError."""
    true = Trial(place, {name: _shape(site, rewrite, name) for name in place.variables})
    scaled = _scaled(true)
    for trial in (true,) if scaled is None else (scaled, true):
        smaller = _smaller(trial, rewrite)
        if smaller is not None:
            yield smaller
        yield trial


def _shape(site: Site, rewrite: Rewrite, name: str) -> list[int]:
    if name not in site.types:
        raise UnknownShapeError(f"the type of {name} is not known")
    shape = site.shape(name)
    return (
        _guessed(site, rewrite, name) if shape is None else [FREE if size is None else size for size in shape]
    )


def _smaller(trial: Trial, rewrite: Rewrite) -> Trial | None:
    """Make sizes small that no constant and no attribute knows of."""
    known = {size for tensor in trial.place.constants for size in tensor.dims}
    known |= {size for node in rewrite.old for size in _integers(node)}
    for tensor in trial.place.constants:
        if _holds_sizes(tensor):
            known.update(int(v) for v in numpy_helper.to_array(tensor).reshape(-1))
    every = {size for shape in trial.shapes.values() for size in shape}
    smaller = dict(zip(sorted(size for size in every - known if size > LARGE), SMALL, strict=False))
    if not smaller:
        return None
    shapes = {name: [smaller.get(size, size) for size in shape] for name, shape in trial.shapes.items()}
    return replace(trial, shapes=shapes)


def _scaled(trial: Trial) -> Trial | None:
    """Put a small number in the place of what all huge sizes are multiples of, in constants too."""
    unit = math.gcd(*(size for shape in trial.shapes.values() for size in shape if size > HUGE))
    if unit <= HUGE:
        return None

    def scale(size: int) -> int:
        return size // unit * FREE if size >= unit and size % unit == 0 else size

    shapes = {name: [scale(size) for size in shape] for name, shape in trial.shapes.items()}
    constants = []
    for tensor in trial.place.constants:
        if _holds_sizes(tensor):
            value = numpy_helper.to_array(tensor)
            sizes = [scale(int(v)) for v in value.reshape(-1)]
            tensor = numpy_helper.from_array(np.array(sizes, value.dtype).reshape(value.shape), tensor.name)  # noqa: PLW2901
        constants.append(tensor)
    return Trial(replace(trial.place, constants=tuple(constants)), shapes)


def _holds_sizes(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == onnx.TensorProto.INT64 and math.prod(tensor.dims) <= LARGE


def _integers(node: onnx.NodeProto) -> Iterator[int]:
    for field in node.attribute:
        yield from (field.ints if field.ints else (field.i,))


def _guessed(site: Site, rewrite: Rewrite, name: str) -> list[int]:
    """Return a shape that fits a tensor whose rank is not known, from the weights of what reads it."""
    for node in rewrite.old:
        weight = site.graph.initializers.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or node.input[0] != name:
            continue
        if standard(node, "Conv"):
            return [2, weight.dims[1] * attribute(node, "group", 1), *(size + 4 for size in weight.dims[2:])]
        if standard(node, "ConvTranspose"):
            return [2, weight.dims[0], *(size + 4 for size in weight.dims[2:])]
        if standard(node, "Gemm", "MatMul"):
            return [2, weight.dims[1 if attribute(node, "transB", 0) else 0]]
    if all(standard(node, *ANY_RANK) for node in rewrite.old):
        return [2, FREE]
    raise UnknownShapeError(f"the shape of {name} is not known")
