"""What an importance may know of a model besides its weights, and how its numbers are brought together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from farrier_contracts.errors import UsageError

from ..group import Group

Scores = dict[str, np.ndarray]  # by the name of a group: one number for each of its units, in their order
Rows = Callable[[], Iterator[Mapping[str, np.ndarray]]]

OVER = ("sum", "mean", "max")
NORMALIZE = ("auto", "none", "mean", "max", "l2")


@dataclass(frozen=True)
class Evidence:
    """What criteria look at: calibration rows (a fresh stream at each call), and what gradients said.

    `gradients` holds, by criterion and then by group, one number [units] for each unit (`training.importance`).
    """

    rows: Rows | None = None
    gradients: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True)
class Reading:
    """How numbers of several layers become one for a unit, and how layers are made comparable before.

    `normalize` divides a layer's numbers by their mean, largest or root mean square; "auto" takes the mean where a
    criterion says nothing across layers (a norm of weights), and nothing where it does (a change of the loss). `over`
    is "sum", so that a unit that many layers hang on counts as much as it costs, "mean" or "max".
    Raises UsageError for a name that is not known.
    """

    over: str = "sum"
    normalize: str = "auto"

    def __post_init__(self) -> None:
        """Raise UsageError for what is not known."""
        if self.over not in OVER:
            raise UsageError(f"layers are brought together by one of {', '.join(OVER)}, not {self.over!r}")
        if self.normalize not in NORMALIZE:
            raise UsageError(
                f"layers are normalized by one of {', '.join(NORMALIZE)}, not {self.normalize!r}"
            )

    def together(self, group: Group, numbers: list[np.ndarray], *, across: bool = False) -> np.ndarray:
        """Return one number for each unit [units] from those of its layers; NaN where there are none."""
        if not numbers:
            return np.full(group.size, np.nan)
        how = ("none" if across else "mean") if self.normalize == "auto" else self.normalize
        stacked = np.stack([values / _scale(np.asarray(values, np.float64), how) for values in numbers])
        return {"sum": np.sum, "mean": np.mean, "max": np.max}[self.over](stacked, axis=0)


def _scale(values: np.ndarray, how: str) -> float:
    known = values[np.isfinite(values)]
    if how == "none" or not known.size:
        return 1.0
    scale = {
        "mean": np.mean(np.abs(known)),
        "max": np.max(np.abs(known)),
        "l2": np.sqrt(np.mean(known**2)),
    }[how]
    return float(scale) or 1.0
