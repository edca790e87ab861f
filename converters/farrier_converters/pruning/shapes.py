"""The shapes that a graph's tensors really have, found by running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import NUMPY_NAMES

from ..graph import run
from ..model import Model

PAIR = (2, 3)  # sizes of free dimensions: what differs between the two runs is free too
SINGLE = (1, 16, 64, 256, 512, 1024)  # tried one after the other where a model takes no such pair


@dataclass(frozen=True)
class Shape:
    """Sizes in one run, and which of them change with the input's free dimensions."""

    sizes: tuple[int, ...]
    free: tuple[bool, ...]


def observe(model: Model, example: Mapping[str, np.ndarray] | None = None) -> dict[str, Shape]:
    """Return the shape of every tensor that nodes of the outer graph make or read; raises InputError.

    The model is run on `example`, and on its rows twice over; without one, on made-up inputs whose free dimensions
    have two sizes, or one of a few larger ones where it does not take these.
    """
    proto = _every_tensor(model)
    if example is None:
        pair = [_run(proto, model, feeds(model, size)) for size in PAIR]
    else:
        twice = {
            name: np.concatenate([value, value]) if value.ndim else value for name, value in example.items()
        }
        pair = [_run(proto, model, rows) for rows in (example, twice)]
    runs = [found for found in pair if found is not None]
    if len(runs) < len(PAIR) and example is None:
        singles = (_run(proto, model, feeds(model, size)) for size in SINGLE)
        runs = [found for found in singles if found is not None][:1]
    if not runs:
        run.once(proto, dict(example or feeds(model, 1)))  # says why
        raise InputError(f"the model {model.name} does not run on made-up inputs; give real ones")
    first, last = runs[0], runs[-1]
    return {
        name: Shape(sizes, tuple(a != b for a, b in zip(sizes, last.get(name, sizes), strict=False)))
        for name, sizes in first.items()
    }


def feeds(model: Model, size: int) -> dict[str, np.ndarray]:
    """Return made-up inputs whose free dimensions have this size."""
    rng = np.random.default_rng(0)
    found = {}
    for spec in model.inputs:
        shape = [dimension if dimension > 0 else size for dimension in spec.shape]
        dtype = np.dtype(object if spec.datatype == "BYTES" else NUMPY_NAMES[spec.datatype])
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        found[spec.name] = np.asarray(values).astype(dtype)
    return found


def _every_tensor(model: Model) -> onnx.ModelProto:
    names = [name for node in model.proto.graph.node for name in node.output if name]
    return run.up_to(model.proto, list(dict.fromkeys(names)))


def _run(
    proto: onnx.ModelProto, model: Model, rows: Mapping[str, np.ndarray]
) -> dict[str, tuple[int, ...]] | None:
    try:
        results = run.session(proto, optimize=False).run(None, dict(rows))
    except run.runtime_errors():
        return None
    found = {
        output.name: np.asarray(value).shape
        for output, value in zip(proto.graph.output, results, strict=True)
    }
    found.update({name: np.shape(value) for name, value in rows.items()})
    found.update({tensor.name: tuple(tensor.dims) for tensor in model.proto.graph.initializer})
    return found
