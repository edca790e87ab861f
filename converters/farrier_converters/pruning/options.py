"""What structured pruning is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from farrier_contracts.errors import UsageError

from .allocate import SCOPES
from .allocate.goal import MS, MULTIPLY_ADDS, PARAMETERS, Goal
from .importance import CRITERIA
from .importance.evidence import Reading

AUTO = "auto"
SCHEDULES = ("geometric", "linear")


@dataclass(frozen=True)
class PruneOptions:
    """What is removed, and how it is chosen. One goal is given; all shares are of the model as it comes.

    `ratio` is the share of the multiply-adds that goes, `speedup` how many times fewer are left, `latency` the share of
    the predicted time that may be left, `parameters` the share of the parameters that may. Counts of channels end on
    the steps of the target's staircase (else of a default one) unless `any_width`.
    `importance` is one of `importance.CRITERIA`, or "auto": from gradients with training data, from activations with
    calibration data, else from weights; `over` and `normalize` are those of `importance.Reading`. `scope` is "global",
    or "layer" (each group loses the same share). With `rounds`, the goal is approached in as many steps, equal in ratio
    ("geometric") or in difference ("linear"); where `fit` (fields of `training.fit.FitSettings`) is given, the model is
    fine-tuned after each but the last.
    `rebuild` fits what reads the removed channels to calibration rows. `exclude` holds patterns of layer names
    (`*`, `?`), `keep_ends` adds the first and the last layer; `keep_least` is the share of a group that stays,
    `keep_blocks` the share of the blocks. `rows` of data are looked at for importance and rebuilding; `device` is where
    gradients are computed ("cpu", "cuda" or "auto").
    """

    ratio: float | None = None
    speedup: float | None = None
    latency: float | None = None
    parameters: float | None = None
    importance: str = AUTO
    scope: str = "global"
    over: str = "sum"
    normalize: str = AUTO
    rounds: int = 1
    schedule: str = "geometric"
    blocks: bool = True
    any_width: bool = False
    rebuild: bool = True
    exclude: tuple[str, ...] = ()
    keep_ends: bool = False
    keep_least: float = 0.1
    keep_blocks: float = 0.3
    rows: int = 512
    seed: int = 0
    device: str = "cpu"
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for what means nothing."""
        if self.importance != AUTO and self.importance not in CRITERIA:
            raise UsageError(
                f"unknown importance {self.importance!r}; choose one of: {AUTO}, {', '.join(CRITERIA)}"
            )
        if self.scope not in SCOPES:
            raise UsageError(f"the scope of pruning is one of {', '.join(SCOPES)}, not {self.scope!r}")
        if self.schedule not in SCHEDULES:
            raise UsageError(
                f"the schedule of pruning is one of {', '.join(SCHEDULES)}, not {self.schedule!r}"
            )
        if not 1 <= self.rounds <= 1000:
            raise UsageError(f"pruning takes between 1 and 1000 rounds, not {self.rounds}")
        if self.rows < 1:
            raise UsageError("importance looks at one row of data at least")
        Reading(self.over, self.normalize)
        object.__setattr__(self, "exclude", tuple(self.exclude))  # a recipe holds a list

    @property
    def goal(self) -> Goal:
        """The goal; raises UsageError for none, several, or one that means nothing."""
        given = [
            name for name in ("ratio", "speedup", "latency", "parameters") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            raise UsageError(
                "pruning needs one goal: ratio, speedup, latency or parameters"
                + (f"; {' and '.join(given)} are given" if given else "")
            )
        if self.ratio is not None:
            if not 0 <= self.ratio < 1:
                raise UsageError(f"a share of the multiply-adds below 1 can go, not {self.ratio:g}")
            return Goal(MULTIPLY_ADDS, 1 - self.ratio)
        if self.speedup is not None:
            if not self.speedup >= 1:
                raise UsageError(f"the multiply-adds are cut 1 time or more, not {self.speedup:g} times")
            return Goal(MULTIPLY_ADDS, 1 / self.speedup)
        if self.latency is not None:
            return Goal(MS, self.latency)
        return Goal(PARAMETERS, float(self.parameters or 0))

    def steps(self) -> list[float]:
        """Return the share that may be left after each round."""
        keep, count = self.goal.keep, self.rounds
        if self.schedule == "geometric":
            return [keep ** ((i + 1) / count) for i in range(count)]
        return [1 - (1 - keep) * (i + 1) / count for i in range(count)]
