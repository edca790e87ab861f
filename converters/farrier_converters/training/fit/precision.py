"""Mixed precision: the forward pass in 16 bits, weights and losses in 32.

Source: Micikevicius et al., "Mixed precision training", arXiv 1710.03740.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from farrier_contracts.errors import UsageError

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """One precision on one device. Raises UsageError where the device has none of it."""

    def __init__(self, name: str, device: torch.device) -> None:
        if name == "fp16" and device.type == "cpu":
            raise UsageError("fp16 trains on an accelerator only; take bf16 or fp32")
        if (
            name == "bf16"
            and device.type == "cuda"
            and not torch.cuda.is_bf16_supported(including_emulation=False)
        ):
            raise UsageError("this GPU does not compute in bf16; take fp16 or fp32")
        self.device, self.dtype = device, TYPES.get(name)
        self.scaler: Any = torch.amp.GradScaler(device.type) if name == "fp16" else None

    def forward(self) -> AbstractContextManager[Any]:
        """Return the context of a forward pass."""
        return nullcontext() if self.dtype is None else torch.autocast(self.device.type, self.dtype)

    def full(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the values with 16-bit floats made 32: losses are sums, which need them."""
        if self.dtype is None:
            return values
        return {name: value.float() if value.dtype == self.dtype else value for name, value in values.items()}

    def backward(self, loss: Tensor) -> None:
        """Make gradients; those of fp16 are scaled up so that small ones do not become zero."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Make the gradients what they are."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move by the gradients, unless one of them overflowed."""
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)

    def update(self) -> None:
        """Adapt the scale, after all optimizers have moved."""
        if self.scaler is not None:
            self.scaler.update()
