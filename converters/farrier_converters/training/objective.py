"""What a training loop minimizes, and what happens around its steps: the two places where techniques plug in.

Both are protocols with working defaults: a technique derives from one and writes only what it needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from farrier_contracts.errors import InputError

from .losses import Loss, Task, distill
from .module import OnnxModule


class Objective(Protocol):
    """A loss that may look inside: soft labels, features and attention of a teacher, a task's own loss.

    `keep` names the tensors of the graph that it reads besides the outputs.
    """

    keep: Collection[str] = ()

    def __call__(
        self, values: Mapping[str, Tensor], feeds: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Return the loss of a batch, a scalar.

        `values` are the outputs and the tensors of `keep` by name, floats as float32 in any precision of training;
        `feeds` is what the model was fed, `labels` those of the batch (None: it has none), all on the same device.
        """
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what learns besides the module (projections between widths, say); it joins the optimizer."""
        return ()

    def to(self, device: torch.device) -> Any:
        """Move parameters, teachers and constants; called before `parameters` is, more than once maybe."""
        del device

    def check(self, labels: np.ndarray | None, shapes: Mapping[str, torch.Size]) -> None:
        """Look at the labels of a batch while they are on the processor; `shapes` are those of the outputs by name.

        Raises InputError for labels that do not fit: on an accelerator the loss itself could not say so.
        """
        del labels, shapes


@dataclass(frozen=True)
class Moment:
    """Where a training is: `step` counts the optimizer's from 0 over all epochs, `share` is the part done, 0..1."""

    step: int
    epoch: int
    share: float


class Hook(Protocol):
    """What happens around a step: masks that keep weights at zero, gates, schedules of sparsity.

    `settled` is the share of training before which no epoch counts as the best one (0: all do): a schedule says so
    that early stopping does not choose weights from before its end.
    """

    settled: float = 0.0

    def start(self, module: OnnxModule) -> None:
        """Act once, before the first step; the module is on its device already."""
        del module

    def before(self, module: OnnxModule, moment: Moment) -> None:
        """Act before the forward pass."""
        del module, moment

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Act between the backward pass and the optimizer's step: gradients are there, unscaled, not yet clipped."""
        del module, moment

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Act after the optimizer's step."""
        del module, moment

    def finish(self, module: OnnxModule) -> None:
        """Act once, at the end, when the weights that are kept are in place."""
        del module

    def state(self) -> dict[str, Tensor]:
        """Return what a training that was killed needs to go on, besides the module's own weights."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take back what `state` returned; called after `start`."""
        del state


@dataclass
class Plain(Objective):
    """The objective that a loss over outputs and labels makes; batches without labels learn from `teacher`.

    Where the batch has no labels, raises InputError unless there is a teacher.
    """

    module: OnnxModule
    loss: Loss
    teacher: OnnxModule | None = None

    def __call__(
        self, values: Mapping[str, Tensor], feeds: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Return the loss of the outputs."""
        outputs = tuple(values[spec.name] for spec in self.module.model.outputs)
        found = outputs[0] if len(outputs) == 1 else outputs
        if labels is not None:
            return torch.as_tensor(self.loss(found, labels))
        if self.teacher is None:
            raise InputError("the training data has no labels, and there is no float model to learn from")
        with torch.no_grad():
            wanted = self.teacher(**feeds)
        return distill(self.module)(found, wanted)

    def check(self, labels: np.ndarray | None, shapes: Mapping[str, torch.Size]) -> None:
        """Check the labels, where the loss knows how."""
        if labels is not None and isinstance(self.loss, Task):
            self.loss.check(labels, shapes[self.module.model.outputs[0].name])

    def to(self, device: torch.device) -> None:
        """Move the teacher."""
        if self.teacher is not None:
            self.teacher.to(device).eval()
