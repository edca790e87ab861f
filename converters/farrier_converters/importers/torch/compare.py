"""A torch module and its import, run side by side on noise."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...graph import run
from ...model import Model

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-4  # |ours - torch's| <= TOLERANCE * the largest of torch's, per output
SAMPLES = 4  # of noise: a module that was traced may take another branch on one of them
OTHER_ROWS = 3  # of a second comparison, where the batch is free


@dataclass(frozen=True)
class Example:
    """Example inputs in the order of the module's arguments; `free` where their first dimension is the batch."""

    arrays: tuple[torch.Tensor, ...]
    free: bool


def check(module: torch.nn.Module, model: Model, example: Example) -> tuple[str, ...]:
    """Compare on noise of the example's shape, and of another batch where that is free."""
    import torch

    shapes = [example.arrays] * SAMPLES
    if example.free:
        shapes.append(tuple(rows(value, OTHER_ROWS) for value in example.arrays))
    with evaluating(module), torch.no_grad():
        return next(
            (w for seed, like in enumerate(shapes) if (w := differences(module, model, like, seed=seed))), ()
        )


def differences(
    module: torch.nn.Module, model: Model, like: Sequence[torch.Tensor], *, seed: int
) -> tuple[str, ...]:
    """Return one sentence for each output that differs by more than 1e-4 of its range."""
    from torch.utils import _pytree as pytree

    inputs = [noise(value, seed + 7 * number) for number, value in enumerate(like)]
    if len(model.inputs) != len(inputs):
        return (f"the import has {len(model.inputs)} inputs, the module {len(inputs)}",)
    theirs = [
        leaf for leaf in pytree.tree_leaves(module(*(value.clone() for value in inputs))) if leaf is not None
    ]
    feeds = {
        spec.name: value.detach().cpu().numpy() for spec, value in zip(model.inputs, inputs, strict=True)
    }
    ours = run.try_once(model.proto, feeds)
    if ours is None:
        return ("ONNX Runtime does not run the import on noise, so that it was not compared with torch",)
    if len(ours) != len(theirs):
        return (f"the import has {len(ours)} outputs, the module {len(theirs)}",)
    arrays = [np.asarray(value.detach().cpu() if hasattr(value, "detach") else value) for value in theirs]
    return tuple(
        sentence
        for spec, mine, expected in zip(model.outputs, ours, arrays, strict=True)
        if (sentence := _difference(spec.name, np.asarray(mine), expected))
    )


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> str:
    if ours.shape != theirs.shape:
        return f"the output {name!r} of the import has the shape {list(ours.shape)}, in torch {list(theirs.shape)}"
    if not ours.size or np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f"):
        return ""
    with np.errstate(invalid="ignore"):
        gap = float(np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max())
        share = gap / max(float(np.abs(theirs.astype(np.float64)).max()), 1e-30)
    if math.isfinite(share) and share <= TOLERANCE:
        return ""
    return f"the output {name!r} of the import differs from torch's by up to {gap:.2g} ({share:.1g} of the largest)"


def noise(like: torch.Tensor, seed: int) -> torch.Tensor:
    """Return standard normal floats; whole numbers, which may be indices, stay what they are."""
    import torch

    if not like.is_floating_point():
        return like
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator).to(like.dtype).to(like.device)


def rows(value: torch.Tensor, count: int) -> torch.Tensor:
    """Return `count` rows made of a tensor's own."""
    repeats = [-(-count // max(len(value), 1))] + [1] * (value.ndim - 1)
    return value.repeat(repeats)[:count]


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Have a module in evaluation mode meanwhile; each part gets its own mode back."""
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
