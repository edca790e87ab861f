"""What each operator computes: one table, filled by one module per family."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..call import Call
from .activations import ACTIVATIONS
from .convert import CONVERT
from .elementwise import ELEMENTWISE
from .linear import LINEAR
from .logic import LOGIC
from .lstm import LSTM
from .pick import PICK
from .pool import POOL
from .reduce import REDUCE
from .resize import RESIZE
from .shapes import SHAPES
from .softmax import SOFTMAX

Kernel = Callable[[Call], np.ndarray | Sequence[np.ndarray]]

KERNELS: dict[str, Kernel] = {
    **ACTIVATIONS,
    **CONVERT,
    **ELEMENTWISE,
    **LINEAR,
    **LOGIC,
    **LSTM,
    **PICK,
    **POOL,
    **REDUCE,
    **RESIZE,
    **SHAPES,
    **SOFTMAX,
}

__all__ = ["KERNELS", "Kernel"]
