"""The optimizers of a training: one for the weights and what an objective learns, one for the scales of quantizers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from farrier_contracts.errors import InputError

from ..module import OnnxModule
from .precision import Precision
from .settings import FitSettings


class Optimizers:
    """Steps everything that learns; rates are set as a factor of each optimizer's own highest rate.

    Raises InputError where nothing learns.
    """

    def __init__(self, module: OnnxModule, extra: Sequence[nn.Parameter], settings: FitSettings) -> None:
        self.settings = settings
        named = module.parameters_by_name
        self.scales = {n: p for n, p in named.items() if n in module.logarithmic}
        # An engine refuses ratios of scales that are out of its range: they stay near their start.
        octaves = settings.octaves
        self.limits = {n: (p.detach() - octaves, p.detach() + octaves) for n, p in self.scales.items()}
        self.weights = [*(p for n, p in named.items() if n not in self.scales), *extra]
        self.unscaled = False
        self.all: list[tuple[torch.optim.Optimizer, float]] = []  # each with its highest rate
        if self.weights:
            self.all.append((self._weights(), settings.learning_rate))
        if self.scales:
            scales = [*self.scales.values()]
            made = torch.optim.Adam(scales, lr=settings.scale_rate, fused=_fused(scales[0]))
            self.all.append((made, settings.scale_rate))
        if not self.all:
            raise InputError("the model has no weights to train")

    def zero(self) -> None:
        """Forget the gradients."""
        for optimizer, _ in self.all:
            optimizer.zero_grad()

    def unscale(self, precision: Precision) -> None:
        """Make the gradients what they are, once between two steps."""
        if not self.unscaled:
            for optimizer, _ in self.all:
                precision.unscale(optimizer)
            self.unscaled = True

    def step(self, precision: Precision) -> None:
        """Move everything by its gradient."""
        for optimizer, _ in self.all:
            precision.step(optimizer)
        precision.update()
        self.unscaled = False
        self._limit_scales()

    def set(self, factor: float) -> None:
        """Set the rates to this share of their highest."""
        for optimizer, rate in self.all:
            for group in optimizer.param_groups:
                group["lr"] = rate * factor

    @property
    def rate(self) -> float:
        """The learning rate of the weights now (of the scales, where nothing else trains)."""
        return float(self.all[0][0].param_groups[0]["lr"])

    def _limit_scales(self) -> None:
        with torch.no_grad():
            for name, parameter in self.scales.items():
                parameter.clamp_(*self.limits[name])

    def parameters(self) -> list[Tensor]:
        """Return all that learns."""
        return [*self.weights, *self.scales.values()]

    def _weights(self) -> torch.optim.Optimizer:
        settings = self.settings
        # Tensors of one axis are biases and norms: decay would pull them off what they balance.
        groups = [
            {"params": [p for p in self.weights if p.ndim > 1], "weight_decay": settings.weight_decay},
            {"params": [p for p in self.weights if p.ndim <= 1], "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        rate = settings.learning_rate
        fused = _fused(self.weights[0])
        if settings.optimizer == "sgd":
            nesterov = settings.momentum > 0
            return torch.optim.SGD(
                groups, lr=rate, momentum=settings.momentum, nesterov=nesterov, fused=fused
            )
        kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.AdamW
        return kind(groups, lr=rate, fused=fused)


def _fused(parameter: Tensor) -> bool | None:
    """Say whether to take an optimizer that is one kernel, and does not wait for the scale of gradients."""
    return True if parameter.device.type == "cuda" else None
