"""How each TFLite operator becomes ONNX: one table, filled by one module per family."""

from __future__ import annotations

from ._operation import Handler, Operation
from .blocks import BLOCKS
from .conv import CONV
from .elementwise import ELEMENTWISE
from .matrix import MATRIX
from .pick import PICK
from .recurrent import RECURRENT
from .reduce import REDUCE
from .resample import RESAMPLE
from .shapes import SHAPES

HANDLERS: dict[str, Handler] = {
    **BLOCKS,
    **CONV,
    **ELEMENTWISE,
    **MATRIX,
    **PICK,
    **RECURRENT,
    **REDUCE,
    **RESAMPLE,
    **SHAPES,
}

__all__ = ["HANDLERS", "Handler", "Operation"]
