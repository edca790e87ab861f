"""How each ONNX operator becomes operators of TFLite: one table, filled by one module per family."""

from __future__ import annotations

from ..node import Handler
from .activation import ACTIVATION
from .blocks import BLOCKS
from .conv import CONV
from .deconv import DECONV
from .elementwise import ELEMENTWISE
from .grid import GRID
from .matrix import MATRIX
from .norm import NORM
from .pick import PICK
from .pool import POOL
from .recurrent import RECURRENT
from .reduce import REDUCE
from .resample import RESAMPLE
from .shapes import SHAPES

HANDLERS: dict[str, Handler] = {
    **ACTIVATION,
    **BLOCKS,
    **CONV,
    **DECONV,
    **ELEMENTWISE,
    **GRID,
    **MATRIX,
    **NORM,
    **PICK,
    **POOL,
    **RECURRENT,
    **REDUCE,
    **RESAMPLE,
    **SHAPES,
}

__all__ = ["HANDLERS"]
