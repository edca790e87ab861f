"""The shapes that a graph's tensors really have, found by running it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import NUMPY_NAMES

from ..graph import run
from ..model import Model

ROWS = (2, 3)  # sizes of the free first dimension in two runs: what differs between them is free too
SIZES = (
    16,
    32,
    64,
    256,
    512,
    1024,
)  # of other free dimensions, tried where they cannot have the size of the rows
RANKS = 16  # a list of integers that is longer is no shape

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Shape:
    """Sizes in one run, and which of them may change with the input's free dimensions.

    `values` are those of a short list of integers: of what may be a shape.
    """

    sizes: tuple[int, ...]
    free: tuple[bool, ...]
    values: tuple[int, ...] = ()


def observe(model: Model, example: Mapping[str, np.ndarray] | None = None) -> dict[str, Shape]:
    """Return the shape of every tensor that nodes of the outer graph make or read; raises InputError.

    The model is run on `example`, and on its rows twice over; without one, on made-up inputs of two sizes, or of one
    where it takes no two. Sizes that did not change with every free dimension of the inputs count as free.
    """
    proto = _every_tensor(model)
    for pair in _pairs(model, example):
        runs = [found for feeds in pair if (found := _run(proto, feeds)) is not None]
        if runs:
            whole = len(runs) == 1 and any(size <= 0 for spec in model.inputs for size in spec.shape)
            partly = example is not None and any(
                size <= 0 for spec in model.inputs for size in spec.shape[1:]
            )
            return {
                name: _shape(value, runs[-1][name], unsure=whole or partly) for name, value in runs[0].items()
            }
    run.once(proto, dict(example or feeds(model, ROWS[0])))  # says why
    raise InputError(f"the model {model.name} does not run on made-up inputs; give real ones")


def feeds(model: Model, size: int, rows: int | None = None) -> Feeds:
    """Return made-up inputs whose free dimensions have this size; `rows` is that of the first, and its namesakes."""
    rng = np.random.default_rng(0)
    names = {value.name: _names(value) for value in model.proto.graph.input}
    first = {names[spec.name][0] for spec in model.inputs if spec.shape} - {""}
    found = {}
    for spec in model.inputs:
        shape = [
            dimension
            if dimension > 0
            else (rows or size)
            if axis == 0 or names[spec.name][axis] in first
            else size
            for axis, dimension in enumerate(spec.shape)
        ]
        dtype = np.dtype(object if spec.datatype == "BYTES" else NUMPY_NAMES[spec.datatype])
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        found[spec.name] = np.asarray(values).astype(dtype)
    return found


def _names(value: onnx.ValueInfoProto) -> list[str]:
    return [dimension.dim_param for dimension in value.type.tensor_type.shape.dim]


def _pairs(model: Model, example: Mapping[str, np.ndarray] | None) -> Iterator[Iterator[Feeds]]:
    """Yield pairs of inputs to try, each made when it is asked for."""
    if example is not None:
        yield (
            {
                name: np.concatenate([value] * times) if value.ndim else value
                for name, value in example.items()
            }
            for times in (1, 2)
        )
        return
    yield (feeds(model, rows) for rows in ROWS)
    for size in SIZES:
        yield (feeds(model, size * (rows - 1), rows) for rows in ROWS)
    for size in (1, *SIZES):
        yield (feeds(model, size) for _ in range(1))


def _shape(first: Shape, last: Shape, *, unsure: bool) -> Shape:
    free = tuple(unsure or a != b for a, b in zip(first.sizes, last.sizes, strict=False))
    return Shape(first.sizes, free, first.values)


def _every_tensor(model: Model) -> onnx.ModelProto:
    names = [name for node in model.proto.graph.node for name in node.output if name]
    return run.up_to(model.proto, list(dict.fromkeys(names)))


def _run(proto: onnx.ModelProto, rows: Feeds) -> dict[str, Shape] | None:
    """Return the sizes of every tensor for these inputs, None where the model does not take them."""
    try:
        results = run.session(proto, optimize=False).run(None, rows)
    except run.runtime_errors():
        return None
    found = {name: _seen(np.asarray(value)) for name, value in rows.items()}
    for output, value in zip(proto.graph.output, results, strict=True):
        found[output.name] = _seen(np.asarray(value))
    return found


def _seen(value: np.ndarray) -> Shape:
    short = value.dtype.kind == "i" and value.ndim == 1 and value.size <= RANKS
    return Shape(value.shape, (False,) * value.ndim, tuple(value.tolist()) if short else ())
