"""An exponential moving average of the weights, which often scores better than the weights themselves.

Source: Polyak & Juditsky, "Acceleration of stochastic approximation by averaging", 1992; as it is done for networks,
Tarvainen & Valpola, arXiv 1703.01780.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..module import OnnxModule


class Average:
    """The average of a module's parameters and statistics. The decay grows to `decay` over the first steps."""

    def __init__(self, module: OnnxModule, decay: float) -> None:
        self.decay, self.count = decay, 0
        self.live = {name: t for name, t in module.state_dict().items() if t.is_floating_point()}
        self.values = {name: t.detach().clone() for name, t in self.live.items()}

    def update(self) -> None:
        """Take in the weights after a step."""
        self.count += 1
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        with torch.no_grad():
            move = get_ema_multi_avg_fn(decay)
            move([*self.values.values()], [*self.live.values()], self.count)

    def restore(self, values: Mapping[str, Tensor], count: int) -> None:
        """Take back an average."""
        self.count = count
        for name, value in values.items():
            self.values[name].copy_(value)
