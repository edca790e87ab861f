"""Hooks of the training loop: raise sparsity along a schedule, and keep zeros at zero."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ...sparsity import importance, schedules
from ...sparsity.goal import Goal
from ...sparsity.layers import Layer
from ..module import OnnxModule
from ..objective import Moment


@dataclass(frozen=True)
class Ramp:
    """When sparsity rises: between two shares of the training, in `updates` steps of equal length.

    Training goes on with fixed zeros after `end`.
    """

    schedule: str = schedules.CUBIC
    start: float = 0.0
    end: float = 0.6
    updates: int = 50

    def part(self, share: float) -> float:
        """Return the part 0..1 of the final ratio at a share 0..1 of the training."""
        if share < self.start:
            return 0.0
        width = self.end - self.start
        place = 1.0 if width <= 0 else min((share - self.start) / width, 1.0)
        return schedules.get(self.schedule)(place)

    def number(self, share: float) -> int:
        """Return how many updates are due at a share of the training."""
        if share < self.start:
            return 0
        width = self.end - self.start
        if self.schedule == schedules.ONE_SHOT or width <= 0:
            return 1
        return 1 + min(int((share - self.start) / width * self.updates), self.updates)


class KeepZeros:
    """Weights that are zero when training starts stay so: `masks` by the name of the constant, as stored."""

    def __init__(self, masks: Mapping[str, np.ndarray]) -> None:
        self._given = dict(masks)
        self._masks: dict[str, Tensor] = {}

    @property
    def settled(self) -> bool:
        """Whether the module has all its zeros: always."""
        return True

    def before(self, module: OnnxModule, moment: Moment) -> None:
        """Do nothing."""

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Do nothing: what the optimizer does to a zero is undone after its step."""

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Set the zeros."""
        self.apply(module)

    def apply(self, module: OnnxModule) -> None:
        """Set the zeros of a module, whatever it holds."""
        weights = module.parameters_by_name
        with torch.no_grad():
            for name, mask in self._given.items():
                weight = weights.get(name)
                if weight is None:
                    continue
                if name not in self._masks or self._masks[name].device != weight.device:
                    self._masks[name] = torch.from_numpy(np.ascontiguousarray(mask)).to(weight.device)
                weight.mul_(self._masks[name])

    def replace(self, masks: Mapping[str, np.ndarray]) -> None:
        """Take other masks from now on."""
        self._given = dict(masks)
        self._masks = {}

    def mask(self, name: str, weight: Tensor) -> Tensor | None:
        """Return the mask of a weight, on its device; None where there is none yet."""
        return self._masks.get(name)


def zeros_of(module: OnnxModule, layers: Mapping[str, Layer]) -> KeepZeros:
    """Return the hook that keeps the zeros of these layers, as the module has them now."""
    weights = module.parameters_by_name
    return KeepZeros({n: weights[n].detach().cpu().numpy() != 0 for n in layers if n in weights})


class Sparsify:
    """Raises sparsity along a ramp: at each update the masks are chosen anew from the weights as they are.

    With `importance` "movement", weights count by how they move away from zero: the score grows by -w * dL/dw at every
    step, removed weights keep their value and may return, and the loss sees the masked ones (Sanh et al., "Movement
    Pruning", arXiv 2005.07683). Otherwise they count by size, removed weights are zero, and stay so.
    """

    def __init__(self, layers: Mapping[str, Layer], goal: Goal, ramp: Ramp = Ramp(), *, moves: bool = False) -> None:
        self.layers, self.goal, self.ramp, self.moves = layers, goal, ramp, moves
        self._zeros = KeepZeros({})
        self._updates, self._reached = 0, 0.0
        self._scores: dict[str, Tensor] = {}  # of movement
        self._whole: dict[str, Tensor] = {}  # weights without their mask, of movement

    @property
    def settled(self) -> bool:
        """Whether the module has the whole ratio: an earlier state is not what was asked for."""
        return self._reached >= 1.0

    def before(self, module: OnnxModule, moment: Moment) -> None:
        """Choose new masks where an update is due."""
        due = self.ramp.number(moment.share)
        if self._updates < due and (self._scores or not self.moves):
            self._updates = due
            self.update(module, self.ramp.part(moment.share))

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Let movement count; removed weights stay where they are."""
        if not self.moves:
            return
        with torch.no_grad():
            for name, weight in self._weights(module).items():
                if weight.grad is None:
                    continue
                whole = self._whole.setdefault(name, weight.detach().clone())
                moved = -whole * weight.grad
                self._scores[name] = self._scores[name] + moved if name in self._scores else moved

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Set the zeros again."""
        if self.moves:
            self._remember(module)
        self._zeros.apply(module)

    def update(self, module: OnnxModule, part: float) -> None:
        """Choose masks for a part 0..1 of the final ratio, and apply them."""
        weights = self._weights(module)
        if self.moves:
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(self._whole.get(name, weight))
        layers = {name: self.layers[name] for name in weights}
        masks = self.goal.masks(layers, self._importance(weights), part)
        self._zeros.replace({name: layers[name].view.stored(mask) for name, mask in masks.items()})
        self._zeros.apply(module)
        self._reached = part

    def finish(self, module: OnnxModule) -> None:
        """Make sure of the whole ratio when training is over, whichever state of it was kept."""
        if not self.settled:
            self.update(module, 1.0)
        self._zeros.apply(module)

    def _weights(self, module: OnnxModule) -> dict[str, nn.Parameter]:
        weights = module.parameters_by_name
        return {name: weights[name] for name in self.layers if name in weights}

    def _importance(self, weights: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        measure: Callable[[str], Tensor] = (
            (lambda name: self._scores[name]) if self.moves else (lambda name: weights[name].detach().abs())
        )
        return {n: self.layers[n].view.cube(measure(n).cpu().numpy()).astype(np.float32) for n in weights}

    def _remember(self, module: OnnxModule) -> None:
        """Note where kept weights went; those that are removed stay where they were."""
        for name, weight in self._weights(module).items():
            mask, whole = self._zeros.mask(name, weight), self._whole.get(name)
            stepped = weight.detach()
            self._whole[name] = (
                stepped.clone() if mask is None or whole is None else torch.where(mask, stepped, whole)
            )


__all__ = ["KeepZeros", "Ramp", "Sparsify", "importance", "zeros_of"]
