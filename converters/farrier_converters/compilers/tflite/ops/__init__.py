"""How each ONNX operator becomes operators of TFLite: one table, filled by one module per family."""

from __future__ import annotations

from ..node import Handler
from .activation import ACTIVATION
from .conv import CONV
from .elementwise import ELEMENTWISE
from .matrix import MATRIX
from .norm import NORM
from .pool import POOL
from .reduce import REDUCE
from .shapes import SHAPES

HANDLERS: dict[str, Handler] = {
    **ACTIVATION,
    **CONV,
    **ELEMENTWISE,
    **MATRIX,
    **NORM,
    **POOL,
    **REDUCE,
    **SHAPES,
}

__all__ = ["HANDLERS"]
