"""What gradients say about units: one number for each, gathered over a few batches; the weights stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from farrier_contracts.errors import InputError

from ..pruning.group import Group, Groups
from ..pruning.importance.observe import Tap, numbering, split, taps
from .fit.device import feeds_on, resolve, to_device
from .losses import ends_in_softmax, task
from .module import OnnxModule

Batches = Iterable[tuple[Mapping[str, Any], Any]]
GATES, WEIGHTS = ("gate", "fisher"), ("taylor", "hessian")
SMALLEST = 1e-7  # of a probability whose logarithm is taken


def gradients(
    groups: Groups,
    name: str,
    batches: Batches,
    *,
    rows: int = 512,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[str, float], None] = lambda _stage, _share: None,
) -> dict[str, np.ndarray]:
    """Return the numbers of a criterion ("taylor", "gate", "fisher", "hessian") by group, each [units] float64.

    `batches` yields inputs with labels. Without labels (None) they are drawn from the model's own answers, which
    makes "fisher" the Fisher information itself (of a classifier; of other outputs, that of a normal distribution
    around them). At most `rows` rows are looked at. Raises InputError for no data, or a loss that is not a number.
    """
    module = OnnxModule(groups.model).to(resolve(device)).eval()
    gather = _Gates(module, groups, name) if name in GATES else _Weights(module, groups, name)
    generator = torch.Generator().manual_seed(seed)
    where, seen = resolve(device), 0
    for inputs, labels in batches:
        feeds = feeds_on(inputs, module.model.inputs, where, channels_last=False)
        values = module.compute(feeds, gather.keep)
        loss, count = _loss(
            module, values, None if labels is None else to_device(np.asarray(labels), where), generator
        )
        if not bool(torch.isfinite(loss)):
            raise InputError(
                "the loss of the model on the data is not a number; importance needs one that is"
            )
        gather.add(values, loss, count)
        seen += count
        progress("weighing channels by gradients", min(1.0, seen / rows))
        if seen >= rows:
            break
    if not seen:
        raise InputError("the training data holds no batches")
    found = split(groups, gather.result(seen))
    if not all(np.isfinite(values).all() for values in found.values()):
        raise InputError("gradients of the model on the data are not finite; importance needs some that are")
    return found


def _loss(
    module: OnnxModule, values: Mapping[str, Tensor], labels: Tensor | None, generator: torch.Generator
) -> tuple[Tensor, int]:
    """Return the loss as a sum over rows, so that each row's gradients are its own, and the number of rows."""
    outputs = [values[spec.name] for spec in module.model.outputs]
    first = outputs[0]
    count = int(first.shape[0]) if first.ndim else 1
    if labels is not None:
        return task(module)(first, labels) * count, count
    total = torch.zeros((), device=first.device)
    for number, found in enumerate(o for o in outputs if o.is_floating_point()):
        if number == 0 and found.ndim == 2 and found.shape[1] > 1:
            logs = found.clamp_min(SMALLEST).log() if ends_in_softmax(module) else F.log_softmax(found, 1)
            drawn = torch.multinomial(logs.detach().exp().cpu(), 1, generator=generator).to(found.device)
            total = total - logs.gather(1, drawn).sum()
        else:
            noise = torch.randn(found.shape, generator=generator).to(found.device)
            total = total + (found * noise).sum()
    return total, count


class _Gates:
    """Gradients with respect to a factor 1 on each unit: of each row, summed over all tensors that layers read."""

    def __init__(self, module: OnnxModule, groups: Groups, name: str) -> None:
        inputs = {spec.name for spec in groups.model.inputs}
        self.taps = [tap for tap in taps(groups) if tap.tensor not in inputs]
        self.keep = [tap.tensor for tap in self.taps]
        self.squared = name == "fisher"
        self.total = np.zeros(len(numbering(groups)))

    def add(self, values: Mapping[str, Tensor], loss: Tensor, count: int) -> None:
        there = [tap for tap in self.taps if isinstance(values.get(tap.tensor), Tensor)]
        there = [tap for tap in there if values[tap.tensor].requires_grad]
        tensors = [values[tap.tensor] for tap in there]
        found = torch.autograd.grad(loss, tensors, allow_unused=True) if tensors else []
        size = len(self.total)
        rows = torch.zeros((count, size), dtype=torch.float64)
        for tap, value, slope in zip(there, tensors, found, strict=True):
            if slope is not None:
                self._add_tap(rows, tap, (value.detach() * slope))
        change = rows.square().sum(0) / 2 if self.squared else rows.abs().sum(0)
        self.total += change.numpy()

    def _add_tap(self, rows: Tensor, tap: Tap, product: Tensor) -> None:
        index = torch.from_numpy(tap.index)
        apart = product.ndim == tap.index.ndim and tap.index.shape[0] == 1 and product.shape[0] == len(rows)
        axes = [a for a in range(apart, product.ndim) if tap.index.shape[a] == 1 and product.shape[a] > 1]
        sums = (product.sum(axes, keepdim=True) if axes else product).double().cpu()
        index = index.expand(1, *sums.shape[1:]) if apart else index.expand(sums.shape)
        sums = sums.reshape(len(rows), -1) if apart else sums.reshape(1, -1) / len(rows)
        index = index.reshape(-1)
        known = index >= 0
        rows.index_add_(1, index[known], sums[:, known].expand(len(rows), -1).contiguous())

    def result(self, seen: int) -> np.ndarray:
        return self.total / seen


class _Weights:
    """Gradients times weights, unit by unit, over the constants of the layers that make them."""

    def __init__(self, module: OnnxModule, groups: Groups, name: str) -> None:
        self.keep: list[str] = []
        self.groups, self.parameters = groups, module.parameters_by_name
        self.squares = name == "hessian"
        self.total = np.zeros(len(numbering(groups)))
        self.batches = 0

    def add(self, values: Mapping[str, Tensor], loss: Tensor, count: int) -> None:
        names = list(self.parameters)
        found = torch.autograd.grad(loss / count, [self.parameters[n] for n in names], allow_unused=True)
        slopes = {n: g.detach().cpu().numpy() for n, g in zip(names, found, strict=True) if g is not None}
        values_of = {n: self.parameters[n].detach().cpu().numpy() for n in slopes}
        numbers = [self._group(group, slopes, values_of) for group in self.groups.groups]
        self.total += np.concatenate(numbers) if numbers else 0.0
        self.batches += 1

    def _group(
        self, group: Group, slopes: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        total = np.zeros(group.size)
        for place in group.places:
            if not place.makes or place.tensor not in slopes:
                continue
            product = slopes[place.tensor].astype(np.float64) * values[place.tensor]
            product = np.moveaxis(product**2 if self.squares else product, place.axis, 0)
            rows = product.reshape(len(product), -1).sum(axis=1)
            total += rows[place.positions].sum(axis=1)
        return total / 2 if self.squares else total**2

    def result(self, seen: int) -> np.ndarray:
        return self.total / max(self.batches, 1)
