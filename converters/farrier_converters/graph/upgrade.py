"""Raise the operator set of a graph, and prove that it still computes the same."""

from __future__ import annotations

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..model import Model, from_proto, opset
from . import run
from .edit import Graph

TOLERANCE = 1e-4


def upgrade(model: Model, version: int, *, feeds: dict[str, np.ndarray] | None = None) -> Model:
    """Return the model in operator set `version` or newer; a newer model is returned as it is.

    The result has to agree with the original to 1e-4 on `feeds` (default: seeded noise); raises InputError else.
    """
    if opset(model.proto) >= version:
        return model
    plain = Graph(model).build()  # the converter stumbles over initializers that are also inputs
    try:
        proto = onnx.version_converter.convert_version(plain.proto, version)
    except (RuntimeError, ValueError, onnx.checker.ValidationError) as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise InputError(lines[0].rpartition("failed: ")[2] if lines else "no adapter") from None
    proto.ir_version = max(proto.ir_version, 7)
    raised = Graph(from_proto(proto, model.name)).build()
    inputs = run.sample(model) if feeds is None else feeds
    if not run.same(run.once(raised.proto, inputs), run.once(model.proto, inputs), tolerance=TOLERANCE):
        raise InputError("the converted graph computes something else")
    return raised
