"""How to train, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farrier_contracts.errors import UsageError

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("cosine", "constant", "one-cycle", "step", "multistep")
PRECISIONS = ("fp32", "bf16", "fp16")
DEVICES = ("cpu", "cuda", "auto")


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    The default is AdamW, because its rate fits networks of any scale: SGD at 0.01 trains a ResNet20 as well, and ruins
    a smaller one that came with its batch norms folded. `momentum` is that of SGD. `weight_decay` acts on parameters
    of more than one axis; "adam" adds it to the gradient, "adamw" takes it off the weights (Loshchilov & Hutter, arXiv
    1711.05101).

    With `test_rate` a range test over a few batches lowers a `learning_rate` that these weights do not stand (see
    `fit.rate`); None does so for networks that convolve without any normalization, as those with folded batch norms.

    Rates follow `schedule` (see `fit.schedule`) after a linear start over `warmup` of all steps. Batches are
    `accumulate`d before each step of the optimizer; gradients are scaled down to a norm of `clip` (0: they are not).
    `smoothing` spreads this share of a class label over all classes (Szegedy et al., arXiv 1512.00567).

    With validation data, training stops after `patience` epochs without a better one (0: it never does), and the best
    epoch's weights are kept. `average` > 0 keeps an exponential moving average of the weights with this decay per step
    and delivers that.

    `scale_rate` is the rate of the binary logarithms of scales (with Adam), which stay within `octaves` of where they
    started. Batch norms keep their statistics for the last `frozen_norms` of all epochs.

    `device` "auto" takes an accelerator where there is one. `precision` is that of the forward pass (weights stay
    float32). `threads` 0 takes the fastest number by a probe; sums then may differ in their last digits from run to
    run. `look_every` is the number of batches between looks at the loss on an accelerator, each of which waits for it.
    """

    epochs: int = 3
    learning_rate: float = 5e-4
    test_rate: bool | None = None
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)  # of all steps: where "multistep" lowers the rate
    step_epochs: int = 1  # after which "step" lowers the rate
    gamma: float = 0.1  # what "step" and "multistep" multiply the rate by
    warmup: float = 0.05
    accumulate: int = 1  # batches
    clip: float = 0.0
    smoothing: float = 0.0
    patience: int = 0  # epochs
    average: float = 0.0
    scale_rate: float = 0.03
    octaves: float = 2.0
    frozen_norms: float = 0.34
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    channels_last: bool = True
    look_every: int = 50  # batches

    def __post_init__(self) -> None:
        """Raise UsageError for a value that means nothing."""
        _choice("optimizer", self.optimizer, OPTIMIZERS)
        _choice("schedule", self.schedule, SCHEDULES)
        _choice("precision", self.precision, PRECISIONS)
        _choice("device", self.device, DEVICES)
        if self.epochs < 1 or not self.learning_rate > 0 or self.threads < 0:
            raise UsageError("training needs at least one epoch and a learning rate above zero")
        for name in ("accumulate", "step_epochs", "look_every"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be at least 1; it is {getattr(self, name)}")
        for name in ("clip", "patience", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} must not be negative; it is {getattr(self, name)}")
        for name in ("smoothing", "average", "warmup", "frozen_norms", "momentum"):
            if not 0 <= getattr(self, name) <= 1 or (
                name in ("smoothing", "average") and getattr(self, name) == 1
            ):
                raise UsageError(f"{name} is a share from 0 up to 1; it is {getattr(self, name)}")
        if not 0 < self.gamma <= 1:
            raise UsageError(f"gamma must be above 0 and at most 1; it is {self.gamma}")

    @classmethod
    def of(cls, given: Mapping[str, Any], what: str = "training") -> FitSettings:
        """Return the settings that a recipe holds as a table; raises UsageError for names and values that are none.

        `what` is what an error says that the table was given to.
        """
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise UsageError(f"{what} does not take these settings: {error}") from None


def _choice(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UsageError(f"unknown {what} {given!r}; choose one of: {', '.join(known)}")
