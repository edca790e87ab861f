"""The hook that raises sparsity while a network trains."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from farrier_contracts.errors import UsageError

from ...sparsity import schedules
from ...sparsity.goal import Goal
from ...sparsity.layers import Layer
from ..module import OnnxModule
from ..objective import Hook, Moment

SMALLEST = 1e-9  # share of a training: below the first step


@dataclass(frozen=True)
class Ramp:
    """When sparsity rises: from `start` to `end`, shares of the training, in `updates` steps of equal length.

    Training goes on with fixed zeros after `end`. Raises UsageError for a value that means nothing.
    """

    schedule: str = schedules.CUBIC
    start: float = 0.0
    end: float = 0.6
    updates: int = 50

    def __post_init__(self) -> None:
        """Check the values."""
        schedules.get(self.schedule)
        if not 0 <= self.start <= self.end <= 1:
            raise UsageError(
                f"sparsity rises between two shares of the training, 0 <= start <= end <= 1, "
                f"not from {self.start:g} to {self.end:g}"
            )
        if self.updates < 1:
            raise UsageError(f"the number of updates must be at least 1; it is {self.updates}")

    @property
    def settled(self) -> float:
        """The share of training after which the whole ratio is reached: never 0, before which nothing is sparse."""
        whole_at_once = self.schedule in (schedules.ONE_SHOT, schedules.CONSTANT)
        return max(self.start if whole_at_once else self.end, SMALLEST)

    def part(self, share: float) -> float:
        """Return the part 0..1 of the final ratio at a share 0..1 of the training."""
        if share < self.start:
            return 0.0
        width = self.end - self.start
        place = 1.0 if width <= 0 else min((share - self.start) / width, 1.0)
        return schedules.get(self.schedule)(place)

    def due(self, share: float) -> int:
        """Return how many updates should have happened at a share of the training."""
        width = self.end - self.start
        if share < self.start:
            return 0
        if self.schedule == schedules.ONE_SHOT or width <= 0:
            return 1
        return 1 + min(int((share - self.start) / width * self.updates), self.updates)


class Sparsify(Hook):
    """Raises sparsity along a ramp: at each update the masks are chosen anew from the weights as they are.

    Weights count by their size; removed ones are zero and stay so (Zhu and Gupta, arXiv 1710.01878). With `moves`, they
    count by how they move away from zero: a score grows by -w * dL/dw at every step, removed weights keep their value
    and may return, and the loss sees the masked ones (Sanh et al., "Movement Pruning", arXiv 2005.07683).
    `layers` and the goal are what `sparsity` found.
    """

    def __init__(
        self, layers: Mapping[str, Layer], goal: Goal, ramp: Ramp = Ramp(), *, moves: bool = False
    ) -> None:
        self.layers, self.goal, self.ramp, self.moves = layers, goal, ramp, moves
        self.settled = ramp.settled
        self.masks: dict[str, Tensor] = {}  # as stored, True where a weight is kept
        self._updates, self._part = 0, 0.0
        self._device = torch.device("cpu")
        self._scores: dict[str, Tensor] = {}  # of movement
        self._whole: dict[str, Tensor] = {}  # weights without their masks, of movement

    def start(self, module: OnnxModule) -> None:
        """Learn where the module computes."""
        self._device = next(iter(module.parameters_by_name.values())).device

    def before(self, module: OnnxModule, moment: Moment) -> None:
        """Choose new masks where an update is due; movement knows nothing before the first step."""
        due = self.ramp.due(moment.share)
        if self._updates < due and (self._scores or not self.moves):
            self._updates = due
            self.update(module, self.ramp.part(moment.share))

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Count movement, and take removed weights out of the gradients."""
        del moment
        with torch.no_grad():
            for name, weight in self._weights(module).items():
                if weight.grad is None:
                    continue
                if self.moves:
                    whole = self._whole.setdefault(name, weight.detach().clone())
                    moved = -whole * weight.grad
                    self._scores[name] = self._scores[name] + moved if name in self._scores else moved
                if name in self.masks:
                    weight.grad.mul_(self.masks[name])

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Set zeros to zero: momentum and weight decay move weights without a gradient too."""
        del moment
        if self.moves:
            self._remember(module)
        self._apply(module)

    def finish(self, module: OnnxModule) -> None:
        """Make sure of the whole ratio, whichever weights are kept."""
        if self._part < 1.0:
            if self.moves and not self._scores:  # no step was made: size is all there is
                self._scores = {n: w.detach().abs() for n, w in self._weights(module).items()}
            self.update(module, 1.0)
        self._apply(module)

    def update(self, module: OnnxModule, part: float) -> None:
        """Choose masks for a part 0..1 of the final ratio, and apply them."""
        weights = self._weights(module)
        if self.moves:
            with torch.no_grad():
                for name, whole in self._whole.items():
                    weights[name].copy_(whole)
        layers = {name: self.layers[name] for name in weights}
        scores = self._scores if self.moves else {n: w.detach().abs() for n, w in weights.items()}
        cubes = {n: layers[n].view.cube(scores[n].cpu().numpy()).astype(np.float32) for n in weights}
        for name, mask in self.goal.masks(layers, cubes, part).items():
            self.masks[name] = torch.from_numpy(layers[name].view.stored(mask)).to(weights[name].device)
        self._part = part
        self._apply(module)

    def state(self) -> dict[str, Tensor]:
        """Return masks, progress, and what movement counted."""
        counts = {"progress": torch.tensor([float(self._updates), self._part])}
        parts = {"mask": self.masks, "score": self._scores, "whole": self._whole}
        return counts | {f"{kind}/{n}": t for kind, tensors in parts.items() for n, t in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take them back."""
        self._updates, self._part = int(state["progress"][0]), float(state["progress"][1])
        for key, value in state.items():
            kind, _, name = key.partition("/")
            if name:
                {"mask": self.masks, "score": self._scores, "whole": self._whole}[kind][name] = value.to(
                    self._device
                )

    def _weights(self, module: OnnxModule) -> dict[str, nn.Parameter]:
        weights = module.parameters_by_name
        return {name: weights[name] for name in self.layers if name in weights}

    def _apply(self, module: OnnxModule) -> None:
        with torch.no_grad():
            for name, weight in self._weights(module).items():
                if name in self.masks:
                    weight.mul_(self.masks[name])

    def _remember(self, module: OnnxModule) -> None:
        """Note where kept weights went; removed ones stay where they were."""
        for name, weight in self._weights(module).items():
            stepped, mask, whole = weight.detach(), self.masks.get(name), self._whole.get(name)
            kept = stepped.clone() if mask is None or whole is None else torch.where(mask, stepped, whole)
            self._whole[name] = kept
