"""Which tensors of a graph are parameters: those in the weight and bias inputs of operators that have some.

A float constant elsewhere (an epsilon, a window, the bounds of a clip) belongs to the model's mathematics and stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx

WEIGHTS: dict[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "BatchNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "RMSNormalization": (1,),
    "SimplifiedLayerNormalization": (1,),
    "InstanceNormalization": (1, 2),
    "GroupNormalization": (1, 2),
    "PRelu": (1,),
    "LSTM": (1, 2, 3),
    "GRU": (1, 2, 3),
    "RNN": (1, 2, 3),
    "Gather": (0,),  # an embedding
    "Add": (0, 1),  # a bias or a position, where it has more than one element
    "Mul": (0, 1),
}
WHOLE = ("Add", "Mul")  # a single number beside these is a constant of a formula
# What may stand between a parameter and its operator.
CARRIERS = (
    "Identity",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Cast",
    "Clip",
    "QuantizeLinear",
    "DequantizeLinear",
)
MASK_LIMIT = 1e4  # a constant with values beyond it masks, it does not weigh


def parameters(nodes: Iterable[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> list[str]:
    """Return the names of the float constants that train, in the order of their first use."""
    nodes = list(nodes)
    carried = {n.output[0]: n.input[0] for n in nodes if n.op_type in CARRIERS and n.input}
    found: dict[str, None] = {}
    for node in nodes:
        for slot in WEIGHTS.get(node.op_type, ()):
            name = node.input[slot] if slot < len(node.input) else ""
            while name in carried:
                name = carried[name]
            value = constants.get(name)
            if value is not None and _trains(value, whole=node.op_type in WHOLE):
                found[name] = None
    return list(found)


def _trains(value: np.ndarray, *, whole: bool) -> bool:
    if value.dtype.kind != "f" or not value.size or (whole and value.size == 1):
        return False
    return bool(np.isfinite(value).all()) and float(np.abs(value).max()) <= MASK_LIMIT
