"""Hooks that several techniques share."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from .module import OnnxModule
from .objective import Hook, Moment


class KeepZeros(Hook):
    """Weights that are zero when training starts stay zero, so that a sparse model stays as sparse as it is.

    Weights of more than one axis count, or the parameters called `names`: a bias that starts at zero is to learn, and
    so is a weight that is zero throughout.
    Optimizers with momentum or decay move a weight without a gradient too, so that weights are masked after each
    step, and gradients before it.
    """

    def __init__(self, names: Collection[str] | None = None) -> None:
        self.names = names
        self.masks: dict[str, Tensor] = {}  # 1 where a weight is free, 0 where it stays zero

    def start(self, module: OnnxModule) -> None:
        """Remember where the zeros are."""
        self.masks = {}
        named = module.parameters_by_name
        chosen = {n: p for n, p in named.items() if (p.ndim > 1 if self.names is None else n in self.names)}
        masks = {name: (p.detach() != 0).to(p.dtype) for name, p in chosen.items()}
        left = torch.stack([mask.count_nonzero() for mask in masks.values()]).cpu() if masks else ()
        for (name, mask), count in zip(masks.items(), left, strict=True):
            if self.names is not None or 0 < int(count) < mask.numel():
                self.masks[name] = mask

    def gradients(self, module: OnnxModule, moment: Moment) -> None:
        """Take zeros out of the gradients, so that they count in no norm and no momentum."""
        del moment
        named = module.parameters_by_name
        gradients = {name: named[name].grad for name in self.masks}
        _mask({n: g for n, g in gradients.items() if g is not None}, self.masks)

    def after(self, module: OnnxModule, moment: Moment) -> None:
        """Set zeros to zero."""
        del moment
        self.finish(module)

    def finish(self, module: OnnxModule) -> None:
        """Set zeros to zero."""
        named = module.parameters_by_name
        with torch.no_grad():
            _mask({name: named[name] for name in self.masks}, self.masks)

    def state(self) -> dict[str, Tensor]:
        """Return the masks."""
        return dict(self.masks)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take the masks back."""
        self.masks = dict(state)


def _mask(values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> None:
    """Multiply each value by the mask of its name, in place; one kernel for all of them where there is one."""
    if values:
        torch._foreach_mul_([*values.values()], [masks[name] for name in values])  # pyright: ignore[reportPrivateImportUsage]
