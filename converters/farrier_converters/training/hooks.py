"""Hooks that several techniques share."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .module import OnnxModule
from .objective import Hook, Moment


class KeepZeros(Hook):
    """Weights that are zero when training starts stay zero, so that a sparse model stays as sparse as it is.

    All parameters that hold a zero count, or those called `names`. Optimizers with momentum move a weight without a
    gradient too, so that weights are masked after each step and gradients before it.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        self.names = names
        self.masks: dict[str, Tensor] = {}

    def start(self, module: OnnxModule) -> None:
        """Remember where the zeros are."""
        self.masks = {
            name: parameter.detach() != 0
            for name, parameter in module.parameters_by_name.items()
            if (self.names is None or name in self.names) and not bool((parameter.detach() != 0).all())
        }

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Take zeros out of the gradients, so that they count in no norm and no momentum."""
        del moment
        for name, parameter in module.parameters_by_name.items():
            if name in self.masks and parameter.grad is not None:
                parameter.grad.mul_(self.masks[name])

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Set zeros to zero."""
        del moment
        self.finish(module)

    def finish(self, module: OnnxModule) -> None:
        """Set zeros to zero."""
        parameters = module.parameters_by_name
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].mul_(mask)

    def state(self) -> dict[str, Tensor]:
        """Return the masks."""
        return dict(self.masks)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        self.masks = {name: mask.to(self.masks[name].device) for name, mask in state.items()}
