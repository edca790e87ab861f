"""What the engine computes once, when it opens a file: constants that nameless nodes make of constants."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from ..edit import Graph, attribute, standard

PLUMBING = ("QuantizeLinear", "DequantizeLinear")


def made_at_load(graph: Graph) -> set[str]:
    """Return the tensors that nameless nodes make of constants alone: the engine widens weights so, once, at load."""
    made: set[str] = set()
    pending = [n for n in graph.nodes if not n.name and not standard(n, *PLUMBING)]
    while True:
        ready = [n for n in pending if n.input and all(i in graph.initializers or i in made for i in n.input)]
        if not ready:
            return made
        made.update(name for node in ready for name in node.output)
        pending = [n for n in pending if n.output[0] not in made]


def loaded(graph: Graph, name: str) -> np.ndarray | None:
    """Return a constant, stored or made of stored ones by Cast, Mul and Split; None for anything else."""
    value, maker = graph.constant(name), graph.producer.get(name)
    if value is not None or maker is None or not standard(maker, "Cast", "Mul", "Split"):
        return value
    parts = [loaded(graph, part) for part in maker.input]
    if not parts or any(part is None for part in parts):
        return None
    first, last = np.asarray(parts[0]), np.asarray(parts[-1])
    if standard(maker, "Mul"):
        return first * last
    if standard(maker, "Split"):
        pieces = (
            np.split(first, np.cumsum(last)[:-1], attribute(maker, "axis", 0)) if len(parts) > 1 else None
        )
        return None if pieces is None else pieces[list(maker.output).index(name)]
    kind = attribute(maker, "to", onnx.TensorProto.UNDEFINED)
    return first.astype(helper.tensor_dtype_to_np_dtype(kind))
