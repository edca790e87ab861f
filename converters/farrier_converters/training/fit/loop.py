"""The training loop."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ..data import Stream, length, stream
from ..losses import Loss, task
from ..module import OnnxModule
from ..objective import Hook, Moment, Objective, Plain
from .device import feeds_on, resolve, threads, to_device
from .history import History
from .optimizers import Optimizers
from .schedule import factor
from .settings import FitSettings

Progress = Callable[[str, float], None]


def fit(
    module: OnnxModule,
    data: Any,
    settings: FitSettings = FitSettings(),
    *,
    objective: Objective | None = None,
    hooks: Sequence[Hook] = (),
    loss: Loss | None = None,
    teacher: OnnxModule | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> History:
    """Train a module in place on a stream, or any iterable of batches (see `data.stream`).

    `objective` says what is minimized. Without one it is `loss(outputs, labels)`, or the one that the labels suggest
    (`losses.task`); batches without labels learn from `teacher`'s answers then. `hooks` act around each step.

    The module stays on the device of `settings`. Where the loss is no longer a number, training stops and the last
    completed epoch stays. Raises InputError for data that does not fit, or a loss that is no number in the first
    epoch; UsageError for a device that is not there.
    """
    torch.manual_seed(settings.seed)
    data = stream(data, [spec.name for spec in module.model.inputs])
    objective = objective or Plain(module, loss or task(module), teacher)
    run = _Run(module, settings, objective, hooks)
    history = History()
    with threads(settings.threads, lambda: run.rehearse(data)):
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
    for hook in hooks:
        hook.finish(module)
    module.eval()
    return history


class _Run:
    def __init__(
        self, module: OnnxModule, settings: FitSettings, objective: Objective, hooks: Sequence[Hook]
    ) -> None:
        self.device = resolve(settings.device)
        self.module, self.settings, self.objective, self.hooks = module, settings, objective, hooks
        module.to(self.device)
        objective.to(self.device)
        for hook in hooks:
            hook.start(module)
        self.optimizers = Optimizers(module, [p for p in objective.parameters() if p.requires_grad], settings)
        self.batches: int | None = None  # in an epoch, once known
        self.steps = 0

    def epoch(self, data: Stream, number: int, progress: Progress) -> float | None:
        """Train for one epoch; returns the mean loss, None when it is no number."""
        settings = self.settings
        self.module.train()
        self.module.norms_frozen = number >= settings.epochs - int(settings.frozen_norms * settings.epochs)
        self.batches = self.batches or length(data)
        total, count = torch.zeros((), device=self.device), 0
        look = 1 if self.device.type == "cpu" else settings.look_every  # a look waits for an accelerator
        for inputs, labels in data(number):
            share = number + min(count / self.batches, 1.0) if self.batches else number
            moment = Moment(self.steps, number, share / settings.epochs)
            total = total + self._step(inputs, labels, moment)
            count += 1
            if count % look == 0:
                if not math.isfinite(float(total)):
                    return None
                progress("train", moment.share)
        if not count:
            raise InputError("the training data holds no batches")
        self.batches = count
        mean = float(total) / count
        return mean if math.isfinite(mean) and self._finite() else None

    def rehearse(self, data: Stream) -> None:
        """Do one forward and backward pass that leaves nothing behind."""
        batch = next(iter(data(0)), None)
        if batch is None:
            raise InputError("the training data holds no batches")
        self.module.train()
        self.module.norms_frozen = True
        self._value(*batch).backward()
        self.optimizers.zero()

    def _step(self, inputs: Mapping[str, Any], labels: np.ndarray | None, moment: Moment) -> Tensor:
        self.optimizers.set(factor(self.settings, moment.share))
        self.optimizers.zero()
        for hook in self.hooks:
            hook.before(self.module, moment)
        value = self._value(inputs, labels)
        value.backward()
        for hook in self.hooks:
            hook.gradients(self.module, moment)
        self.optimizers.step()
        self.steps += 1
        for hook in self.hooks:
            hook.after(self.module, moment)
        return value.detach()

    def _value(self, inputs: Mapping[str, Any], labels: np.ndarray | None) -> Tensor:
        feeds = feeds_on(inputs, self.device, channels_last=self.settings.channels_last)
        values = self.module.compute(feeds, self.objective.keep)
        self.objective.check(labels, {name: value.shape for name, value in values.items()})
        wanted = None if labels is None else to_device(labels, self.device)
        return self.objective(values, feeds, wanted)

    def _finite(self) -> bool:
        with torch.no_grad():
            sums = [p.detach().abs().max() for p in self.optimizers.parameters() if p.numel()]
            return bool(torch.stack(sums).isfinite().all())
