"""The training loop: seeded, with a cosine schedule, and a stop before a diverged model is kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError, UsageError

from .data import Stream, stream
from .losses import Loss, distill, task
from .module import OnnxModule

OPTIMIZERS = ("sgd", "adam")
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class FitSettings:
    """How to train. Rates fall along half a cosine to zero, after a linear start over `warmup` of all steps.

    The default is Adam, because its rate fits networks of any scale: SGD at 0.01 trains a ResNet20 as well, and ruins
    a smaller one that came with its batch norms folded. `momentum` is that of SGD.
    `scale_rate` is the rate of the binary logarithms of scales (with Adam), which stay within `octaves` of where they
    started. Batch norms keep their statistics for the last `frozen_norms` of all epochs. `threads` 0 takes the
    fastest number by a probe; sums then may differ in their last digits from run to run.
    """

    epochs: int = 3
    learning_rate: float = 5e-4
    optimizer: str = "adam"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    scale_rate: float = 0.03
    octaves: float = 2.0
    warmup: float = 0.05
    frozen_norms: float = 0.34
    seed: int = 0
    threads: int = 1
    channels_last: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a value that means nothing."""
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"unknown optimizer {self.optimizer!r}; choose one of: {', '.join(OPTIMIZERS)}")
        if self.epochs < 1 or self.learning_rate <= 0 or self.threads < 0:
            raise UsageError("training needs at least one epoch and a learning rate above zero")


@dataclass
class History:
    """The mean loss of each epoch that was completed, and what went wrong, in one sentence."""

    losses: list[float] = field(default_factory=list)
    note: str | None = None


def fit(
    module: OnnxModule,
    data: Any,
    settings: FitSettings = FitSettings(),
    *,
    loss: Loss | None = None,
    teacher: OnnxModule | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> History:
    """Train a module in place on a stream, or any iterable of batches (see `data.stream`).

    Batches without labels learn from `teacher`'s answers.

    `loss(outputs, labels)` replaces the one chosen by the labels (`losses.task`). Where the loss is no longer a
    number, training stops and the last completed epoch stays. Raises InputError for data that does not fit, or a loss
    that is no number in the first epoch.
    """
    torch.manual_seed(settings.seed)
    data = stream(data, [spec.name for spec in module.model.inputs])
    run = _Run(module, settings, loss or task(module), distill(module), teacher)
    history = History()
    with _threads(settings.threads, lambda: run.probe(next(iter(data(0)), None))):
        for epoch in range(settings.epochs):
            kept = copy.deepcopy(module.state_dict())
            mean = run.epoch(data, epoch, progress)
            if mean is None:
                module.load_state_dict(kept)
                if epoch == 0:
                    raise InputError(
                        "the loss is not a number from the first epoch on; lower the learning rate"
                    )
                history.note = (
                    f"the loss of epoch {epoch + 1} is not a number; the weights before it are kept"
                )
                progress(history.note, 1.0)
                break
            history.losses.append(mean)
    module.eval()
    return history


class _Run:
    def __init__(
        self,
        module: OnnxModule,
        settings: FitSettings,
        loss: Loss,
        distance: Loss,
        teacher: OnnxModule | None,
    ) -> None:
        self.module, self.settings, self.loss, self.distance = module, settings, loss, distance
        self.teacher = None if teacher is None else teacher.eval()
        self.scales = {n: p for n, p in module.parameters_by_name.items() if n in module.logarithmic}
        self.start = {name: p.detach().clone() for name, p in self.scales.items()}
        self.optimizers = self._optimizers()
        self.batches: int | None = None  # in an epoch, once known

    def epoch(self, data: Stream, number: int, progress: Progress) -> float | None:
        """Train for one epoch; returns the mean loss, None when it is no number."""
        frozen = self.settings.frozen_norms * self.settings.epochs
        self.module.train()
        self.module.norms_frozen = number >= self.settings.epochs - int(frozen)
        self.batches = self.batches or (len(data) if hasattr(data, "__len__") else None)  # type: ignore[arg-type]
        total, count = 0.0, 0
        for inputs, labels in data(number):
            share = (
                number + min(count / self.batches, 1.0) if self.batches else number
            ) / self.settings.epochs
            self._set_rates(share)
            value = self._step(inputs, labels)
            if not math.isfinite(value):
                return None
            total, count = total + value, count + 1
            progress("train", share)
        if not count:
            raise InputError("the training data holds no batches")
        self.batches = count
        return total / count

    def probe(self, batch: Any) -> float:
        """Return the seconds of one forward and backward pass (the second of two)."""
        started = time.perf_counter()
        for _ in range(2) if batch else ():
            started = time.perf_counter()
            self._value(*batch).backward()
        self.module.zero_grad()
        return time.perf_counter() - started

    def _step(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> float:
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        value = self._value(inputs, labels)
        number = float(value.detach())
        if math.isfinite(number):
            value.backward()
            for optimizer in self.optimizers:
                optimizer.step()
            self._limit_scales()
        return number

    def _value(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> Tensor:
        feeds = {name: self._tensor(value) for name, value in inputs.items()}
        outputs = self.module(**feeds)
        if labels is not None:
            return self.loss(outputs, torch.from_numpy(np.array(labels)))
        if self.teacher is None:
            raise InputError("the training data has no labels, and there is no float model to learn from")
        with torch.no_grad():
            wanted = self.teacher(**feeds)
        return self.distance(outputs, wanted)

    def _tensor(self, value: np.ndarray) -> Tensor:
        made = torch.from_numpy(np.array(value))
        if self.settings.channels_last and made.ndim == 4:
            return made.to(memory_format=torch.channels_last)
        return made

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        settings = self.settings
        rest = [p for n, p in self.module.parameters_by_name.items() if n not in self.scales]
        groups = [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        made: list[torch.optim.Optimizer] = []
        if groups and settings.optimizer == "sgd":
            made.append(
                torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum, nesterov=True)
            )
        elif groups:
            made.append(torch.optim.AdamW(groups, lr=settings.learning_rate))
        if self.scales:
            made.append(torch.optim.Adam(self.scales.values(), lr=settings.scale_rate))
        if not made:
            raise InputError("the model has no weights to train")
        return made

    def _set_rates(self, share: float) -> None:
        settings = self.settings
        factor = (1 + math.cos(math.pi * share)) / 2
        if settings.warmup and share < settings.warmup:
            factor *= (share + 1e-3) / settings.warmup
        for optimizer in self.optimizers:
            scales = type(optimizer) is torch.optim.Adam
            for group in optimizer.param_groups:
                group["lr"] = (settings.scale_rate if scales else settings.learning_rate) * factor

    def _limit_scales(self) -> None:
        """Keep scales near their start: an engine refuses ratios of scales that are out of its range."""
        with torch.no_grad():
            for name, parameter in self.scales.items():
                start = self.start[name]
                parameter.clamp_(start - self.settings.octaves, start + self.settings.octaves)


@contextmanager
def _threads(wanted: int, probe: Callable[[], float]) -> Iterator[None]:
    """Set the number of threads, by probing for 0: more of them are slower on some machines."""
    before = torch.get_num_threads()
    try:
        if wanted:
            torch.set_num_threads(wanted)
        else:
            seconds = {}
            for count in {1, before}:
                torch.set_num_threads(count)
                seconds[count] = probe()
            torch.set_num_threads(min(seconds, key=lambda count: seconds[count]))
        yield
    finally:
        torch.set_num_threads(before)
