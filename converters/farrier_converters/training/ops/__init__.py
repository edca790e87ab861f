"""The operators that train: one function per operator makes a torch function of a node, by its operator set.

A new one is one function in the file of its kind and one line in that file's `OPS`. Operators of ONNX Runtime's own
domain are looked up by name too, where they mean what is written here.
"""

from __future__ import annotations

import onnx

from farrier_contracts.errors import InputError

from . import (
    activation,
    elementwise,
    linear,
    norm,
    pick,
    pool,
    quantized,
    recurrent,
    reduce,
    resample,
    shape,
)
from ._node import Function, Node

MODULES = (
    linear,
    norm,
    activation,
    elementwise,
    pool,
    shape,
    pick,
    reduce,
    resample,
    recurrent,
    quantized,
)
OPS: dict[str, Function] = {name: make for module in MODULES for name, make in module.OPS.items()}
STATEFUL = norm.STATEFUL
DOMAINS = ("", "ai.onnx")
RUNTIME_OPS = ("Gelu", "QuickGelu", "QuantizeLinear", "DequantizeLinear", "SimplifiedLayerNormalization")


def lower(node: onnx.NodeProto, opset: int) -> Function:
    """Return the torch function of a node; raises InputError for an operator or form that is not covered."""
    known = node.domain in DOMAINS or node.op_type in RUNTIME_OPS
    make = OPS.get(node.op_type) if known else None
    if make is None:
        raise InputError(f"the operator {node.op_type} cannot be trained; convert or exclude it first")
    return make(Node(node, opset))
