"""A float graph as it would be quantized: quantizers where they will stand, with ranges made up.

Rules look at types and shapes, not at values, so nothing is calibrated and nothing is run.
"""

from __future__ import annotations

import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Arithmetic

from .. import passes
from ..graph.edit import Graph
from ..model import Model, from_proto, opset
from ..passes.int8 import OPSET
from ..quantize.placement import place
from ..quantize.rewrite import QdqWriter
from ..quantize.scales import Range


def quantized(model: Model, arithmetic: Arithmetic) -> Model:
    """Return the graph with quantizers for an arithmetic; raises InputError where its operator set cannot hold them."""
    for name in ("clean", "fuse"):
        step = passes.get(name)
        model = step.run(model, step.options(), passes.Context(arithmetic=arithmetic))
    graph = Graph(_raised(model))
    plan = place(graph, arithmetic.quantizers)
    names = [name for name in plan.points if name not in plan.bounds]
    ranges = {name: _made_up(number / len(names)) for number, name in enumerate(names)}
    return QdqWriter(graph, plan, arithmetic).write(ranges)


def _made_up(share: float) -> Range:
    """Return a range unlike others: tensors happen to have one scale as rarely as in a calibrated graph."""
    return Range(-1.0 - share, 1.0 + share)


def _raised(model: Model) -> Model:
    """Return the graph in an operator set that has quantizers by channel; what is not run needs no proof."""
    if opset(model.proto) >= OPSET:
        return model
    plain = Graph(model).build()  # the converter stumbles over initializers that are also inputs
    try:
        raised = onnx.version_converter.convert_version(plain.proto, OPSET)
        raised.ir_version = max(raised.ir_version, 7)
        return Graph(from_proto(raised, model.name)).build()
    except (RuntimeError, ValueError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        raise InputError(
            f"{model.name} is in operator set {opset(model.proto)}, which cannot be quantized; export it in 13 or newer"
        ) from None
