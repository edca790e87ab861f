"""When smaller networks are tried, and how much time that may take."""

from __future__ import annotations

from dataclasses import dataclass

from farrier_contracts.errors import UsageError

AUTO, ALWAYS, NEVER = "auto", "always", "never"
MODES = (AUTO, ALWAYS, NEVER)


@dataclass(frozen=True)
class SmallerSettings:
    """Limits on the search for a smaller network.

    `mode` is "auto" (where there are rows to train on, and quantizing alone misses the budget), "always" or "never".
    Each of at most `most_trainings` trainings takes `epochs` passes over the training rows. Of these rows, a `share`
    (at most `most_rows`) is held out to judge each step by, where there are `least_rows` of them in all; with fewer,
    the calibration rows judge. With `measure_widths`, what widths cost is measured where the target's engine is here.
    `augment` names changes to pictures in training (see `training.augment.named`), like ("crop:4", "mirror").
    """

    mode: str = AUTO
    epochs: int = 10
    most_trainings: int = 6
    share: float = 0.1
    most_rows: int = 1000
    least_rows: int = 100
    measure_widths: bool = True
    augment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise UsageError for a value that means nothing."""
        if self.mode not in MODES:
            raise UsageError(f"prune is one of {', '.join(MODES)}, not {self.mode!r}")
        for name in ("epochs", "most_trainings"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name.replace('_', ' ')} must be at least 1, not {getattr(self, name)}")
