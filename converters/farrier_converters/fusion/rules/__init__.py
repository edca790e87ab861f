"""Every rule, in the order in which they are tried: one line here for a new one."""

from __future__ import annotations

from ..record import Rule
from .activations import ACTIVATION_RULES, GELU, HARD_SWISHES
from .duplicates import DUPLICATES
from .layers import FACTOR_RULES, LAYER_RULES
from .moves import MOVES
from .norms import NORMS
from .nothing import NOTHING
from .regroup import REGROUP
from .scalars import SCALARS
from .shapes import RESHAPE
from .softmax import SOFTMAX
from .through import THROUGH
from .windows import WINDOW_RULES

# What is superfluous in any graph, whatever runs it.
TIDYING: tuple[Rule, ...] = (NOTHING, RESHAPE, DUPLICATES, *MOVES)
# What makes one operator of several.
FUSING: tuple[Rule, ...] = (
    REGROUP,
    NORMS,
    SOFTMAX,
    *WINDOW_RULES,
    *LAYER_RULES,
    *ACTIVATION_RULES,
    *FACTOR_RULES,
    SCALARS,
    *THROUGH,
    NOTHING,
    *MOVES,
)

# Rules that need a newer operator set than many graphs come in.
NEWER: dict[int, tuple[Rule, ...]] = {14: HARD_SWISHES, 17: (NORMS,), 20: (GELU,)}

__all__ = ["FUSING", "NEWER", "TIDYING"]
