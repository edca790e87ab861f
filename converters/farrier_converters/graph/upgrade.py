"""Raise the operator set of a graph, and prove that it still computes the same."""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..model import Model, from_proto, opset
from . import run
from .edit import Graph

TOLERANCE = 1e-4


class CannotUpgradeError(InputError):
    """No adapter exists for an operator, or the raised graph computes something else."""


def upgrade(
    model: Model, version: int, *, feeds: dict[str, np.ndarray] | None = None, newest: int | None = None
) -> Model:
    """Return the model in operator set `version` or newer, and no newer than `newest` where that is given.

    The result has to agree with the original to 1e-4 on `feeds` (default: seeded noise). Raises
    CannotUpgradeError where it does not, InputError where `feeds` does not fit the model.
    """
    if opset(model.proto) >= version:
        if newest is None or opset(model.proto) <= newest:
            return model
        version = newest
    expected = _expected(model, feeds)
    plain = Graph(model).build()  # the converter stumbles over initializers that are also inputs
    try:
        proto = onnx.version_converter.convert_version(plain.proto, version)
    except (
        RuntimeError,
        ValueError,
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise CannotUpgradeError(lines[0].rpartition("failed: ")[2] if lines else "no adapter") from None
    proto.ir_version = max(proto.ir_version, 7)
    notes = {tuple(node.output): node.metadata_props for node in plain.proto.graph.node}
    for node in proto.graph.node:  # the converter drops what passes have noted on nodes
        if not node.metadata_props:
            node.metadata_props.extend(notes.get(tuple(node.output), ()))
    raised = Graph(from_proto(proto, model.name)).build()
    results = run.try_once(raised.proto, run.sample(model) if feeds is None else feeds)
    if results is None or not run.same(results, expected, tolerance=TOLERANCE):
        raise CannotUpgradeError("the raised graph computes something else")
    return raised


def _expected(model: Model, feeds: dict[str, np.ndarray] | None) -> list[np.ndarray]:
    if feeds is not None:
        return run.once(model.proto, feeds)
    results = run.try_once(model.proto, run.sample(model))
    if results is None:
        raise CannotUpgradeError("the model does not run on noise, and there is no data to compare with")
    return results
