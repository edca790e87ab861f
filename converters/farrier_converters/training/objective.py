"""What a training loop minimizes, and what happens around its steps: the two places where techniques plug in."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from .module import OnnxModule


class Objective(Protocol):
    """A loss that may look inside: soft labels, features and attention of a teacher, a task's own loss.

    `keep` names the tensors of the graph that it reads besides the outputs. It is called with all of these by name,
    the feeds of the batch, and the labels (None: the batch has none), and returns a scalar; `parameters` are its own,
    which learn along (projections between widths).
    """

    keep: Collection[str]

    def __call__(
        self, values: Mapping[str, Tensor], feeds: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Return the loss of a batch."""
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return what learns besides the module."""
        ...


@dataclass(frozen=True)
class Moment:
    """Where a training is: `step` counts from 0 over all epochs, `share` is the part done, 0..1."""

    step: int
    epoch: int
    share: float


class Hook(Protocol):
    """What happens around a step: masks that keep weights at zero, gates, schedules of sparsity."""

    def before(self, module: OnnxModule, moment: Moment) -> None:
        """Act before the forward pass."""
        ...

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Act between the backward pass and the optimizer's step: gradients are there."""
        ...

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Act after the optimizer's step."""
        ...


@dataclass
class Plain:
    """The objective that a loss over outputs and labels makes (`losses.task`)."""

    module: OnnxModule
    loss: object
    keep: Collection[str] = field(default_factory=tuple)

    def __call__(
        self, values: Mapping[str, Tensor], feeds: Mapping[str, Tensor], labels: Tensor | None
    ) -> Tensor:
        """Return the loss of the outputs."""
        outputs = tuple(values[spec.name] for spec in self.module.model.outputs)
        found = self.loss(outputs[0] if len(outputs) == 1 else outputs, labels)  # type: ignore[operator]
        return torch.as_tensor(found)

    def parameters(self) -> Iterable[nn.Parameter]:
        """Return nothing: a loss learns nothing."""
        return ()
