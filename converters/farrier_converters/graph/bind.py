"""Give inputs of a graph a fixed value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import numpy_helper

from farrier_contracts.errors import InputError

from ..model import Model, from_proto
from .edit import Graph


def bind(model: Model, values: Mapping[str, np.ndarray]) -> Model:
    """Return the model with these inputs as constants; raises InputError for a name that is no input."""
    graph = Graph(model)
    known = {value.name for value in graph.inputs}
    for name, array in values.items():
        if name not in known:
            raise InputError(f"{model.name} has no input {name!r}")
        graph.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
    graph.inputs = [value for value in graph.inputs if value.name not in values]
    graph.index()
    return from_proto(graph.build().proto, model.name)
