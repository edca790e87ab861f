"""Steps and epochs: what is done to a module between two looks at it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from farrier_contracts.errors import InputError

from ..data import Batch, Stream, length
from ..module import OnnxModule
from ..objective import Hook, Moment, Objective
from .average import Average
from .device import feeds_on, resolve, to_device
from .feed import ahead
from .optimizers import Optimizers
from .precision import Precision
from .schedule import factor
from .settings import FitSettings

GUESS = 100  # batches: half of an epoch whose length is not known


class Trainer:
    """A module with what moves it, on its device."""

    def __init__(
        self, module: OnnxModule, settings: FitSettings, objective: Objective, hooks: Sequence[Hook]
    ) -> None:
        self.device = resolve(settings.device)
        self.precision = Precision(settings.precision, self.device)
        self.module, self.settings, self.objective, self.hooks = module, settings, objective, hooks
        module.to(self.device)
        if settings.channels_last and self.device.type == "cuda":
            # As the batches are: otherwise weights are turned at each step.
            for parameter in (p for p in module.parameters() if p.ndim == 4):
                parameter.data = parameter.data.to(memory_format=torch.channels_last)
        objective.to(self.device)
        for hook in hooks:
            hook.start(module)
        self.extra = [p for p in objective.parameters() if p.requires_grad]
        self.optimizers = Optimizers(module, self.extra, settings)
        self.average = Average(module, settings.average) if settings.average else None
        self.batches: int | None = None  # in an epoch, once known
        self.steps = 0

    def epoch(self, data: Stream, number: int, tell: Callable[[float], None]) -> float | None:
        """Train for one epoch; returns the mean loss, None where that or a weight is no finite number."""
        settings = self.settings
        self.module.train()
        self.module.norms_frozen = number >= settings.epochs - int(settings.frozen_norms * settings.epochs)
        self.batches = self.batches or length(data)
        look = 1 if self.device.type == "cpu" else settings.look_every  # a look waits for an accelerator
        total, count = torch.zeros((), device=self.device), 0
        moment = Moment(self.steps, number, number / settings.epochs)
        for inputs, labels in self._made(data(number)):
            if count % settings.accumulate == 0:
                # The length of a stream may not be known before its first end: then the share only nears it.
                done = count / max(self.batches, count) if self.batches else count / (count + GUESS)
                moment = Moment(self.steps, number, (number + done) / settings.epochs)
                self._begin(moment)
            with self._memory(inputs):
                value, _ = self.value(inputs, labels)
                self._backward(value)
            total, count = total + value.detach(), count + 1
            if count % settings.accumulate == 0:
                self._update(moment)
            if count % look == 0:
                if not math.isfinite(float(total)):
                    return None
                tell(moment.share)
        if not count:
            raise InputError("the training data holds no batches")
        if count % settings.accumulate:
            self._update(moment)
        self.batches = count
        mean = float(total) / count
        return mean if math.isfinite(mean) and self._finite() else None

    def value(self, inputs: Mapping[str, Any], labels: np.ndarray | None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of a batch, and the outputs and kept tensors; raises InputError for what does not fit."""
        feeds = feeds_on(
            inputs, self.module.model.inputs, self.device, channels_last=self.settings.channels_last
        )
        try:
            with self.precision.forward():
                values = self.module.compute(feeds, self.objective.keep)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise InputError(f"the model cannot take this batch ({shapes}): {_first_line(error)}") from error
        values = self.precision.full(values)
        self.objective.check(labels, {name: value.shape for name, value in values.items()})
        wanted = None if labels is None else to_device(labels, self.device)
        found = self.objective(values, feeds, wanted)
        if found.numel() != 1:
            raise InputError(f"a loss is one number; this one has the shape {list(found.shape)}")
        return found.reshape(()), values

    def trial(self, batch: Batch, factor: float) -> float:
        """Do one step of its own, without hooks, at this share of the rate; returns the loss before it."""
        self.module.train()
        self.module.norms_frozen = False
        self.optimizers.set(factor)
        self.optimizers.zero()
        with self._memory(batch[0]):
            value, _ = self.value(*batch)
            number = float(value.detach())
            if math.isfinite(number):
                self.precision.backward(value)
                self._move()
        return number

    def rehearse(self, data: Stream) -> None:
        """Do one forward and backward pass that leaves nothing behind."""
        batch = next(iter(data(0)), None)
        if batch is None:
            raise InputError("the training data holds no batches")
        self.module.train()
        self.module.norms_frozen = True
        self._backward(self.value(*batch)[0])
        self.optimizers.zero()

    def delivered(self) -> dict[str, Tensor]:
        """Return a copy of the weights that would be delivered now: the average where there is one."""
        state = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        if self.average is not None:
            state.update({name: value.clone() for name, value in self.average.values.items()})
        return state

    def _made(self, batches: Iterable[Batch]) -> Iterable[Batch]:
        return batches if self.device.type == "cpu" else ahead(batches)

    def _begin(self, moment: Moment) -> None:
        self.optimizers.set(factor(self.settings, moment.share))
        self.optimizers.zero()
        for hook in self.hooks:
            hook.before(self.module, moment)

    def _backward(self, value: Tensor) -> None:
        if not value.requires_grad:
            raise InputError("nothing that trains has any effect on the loss")
        self.precision.backward(value / self.settings.accumulate)

    def _update(self, moment: Moment) -> None:
        if self.hooks:
            self.optimizers.unscale(self.precision)
            for hook in self.hooks:
                hook.gradients(self.module, moment)
        self._move()
        self.steps += 1
        for hook in self.hooks:
            hook.after(self.module, moment)
        if self.average is not None:
            self.average.update()

    def _move(self) -> None:
        if self.settings.clip:
            self.optimizers.unscale(self.precision)
            torch.nn.utils.clip_grad_norm_(self.optimizers.parameters(), self.settings.clip)
        self.optimizers.step(self.precision)

    @contextmanager
    def _memory(self, inputs: Mapping[str, Any]) -> Iterator[None]:
        """Say in one sentence what to do where a batch does not fit the memory of a device."""
        try:
            yield
        except torch.cuda.OutOfMemoryError as error:
            rows = len(next(iter(inputs.values())))
            raise InputError(
                f"{rows} rows at once need more memory than {self.device} has; take a smaller batch, or checkpoints"
            ) from error

    def _finite(self) -> bool:
        with torch.no_grad():
            most = [t.detach().abs().max().float() for t in self.optimizers.parameters() if t.numel()]
            return bool(torch.stack(most).isfinite().all())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
