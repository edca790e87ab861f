"""From what an allocation says to the pruned model, held against its masked dense twin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import InputError

from ..graph import run
from ..model import Model
from .blocks import Block, drop
from .cut import cut
from .group import Groups, groups_of, sources
from .mask import masked

TOLERANCE = 1e-4  # of the largest output: sums over fewer channels round otherwise


class PruningFault(RuntimeError):
    """A pruned model does not compute what its masked dense twin does: a fault of the dependency graph's."""


@dataclass(frozen=True)
class Removed:
    """A pruned model, the graph that its `units` were cut from (blocks have gone from it before)."""

    model: Model
    groups: Groups
    units: np.ndarray

    def stays(self, tensor: str, axis: int, size: int) -> np.ndarray:
        """Return which of the elements [size] along an axis of a constant stay."""
        found = self.groups.found
        for slot in found.slots:
            if (slot.tensor, slot.axis) == (tensor, axis):
                return ~np.isin(found.units.find(slot.labels), self.units)
        return np.ones(size, bool)


def remove(
    groups: Groups,
    units: np.ndarray,
    blocks: Iterable[Block] = (),
    *,
    example: Mapping[str, np.ndarray] | None = None,
) -> Removed:
    """Take these units and blocks out of the model; `example` is one input by name (made up without).

    Raises InputError for a removal that leaves nothing of a tensor, PruningFault where the result disagrees with the
    masked dense twin.
    """
    blocks = tuple(blocks)
    if blocks:
        shorter = groups_of(drop(groups.model, blocks), example)
        units = carried(groups, units, shorter)
        groups = shorter
    pruned = cut(groups, units)
    if len(units):
        agree(groups, units, pruned, example)
    return Removed(pruned, groups, units)


def carried(groups: Groups, units: np.ndarray, others: Groups) -> np.ndarray:
    """Return the units of another graph that lie where these do in the constants that both have.

    Of units that fall together there, all have to be among these.
    """
    gone = set(units.tolist())
    return np.array(sorted(unit for unit, here in sources(groups, others).items() if here <= gone), np.int64)


def agree(
    groups: Groups, units: np.ndarray, pruned: Model, example: Mapping[str, np.ndarray] | None = None
) -> None:
    """Raise PruningFault where the pruned model and the masked dense twin differ by more than rounding."""
    feeds = dict(example) if example is not None else run.sample(groups.model)
    try:
        twin = masked(groups, units)
    except InputError:
        return  # statistics that cannot be masked: nothing to hold it against
    wanted = run.try_once(twin.proto, feeds)
    if wanted is None:
        return  # the model does not take such inputs
    found = map(np.asarray, run.once(pruned.proto, feeds))
    for spec, left, right in zip(pruned.outputs, found, map(np.asarray, wanted), strict=True):
        if left.shape != right.shape:
            raise PruningFault(
                f"the pruned model's {spec.name} has the shape {left.shape}, not {right.shape}"
            )
        if left.dtype.kind == "f" and left.size:
            apart = float(np.abs(left - right).max())
            if not apart <= TOLERANCE * max(1.0, float(np.abs(right).max())):
                raise PruningFault(f"the pruned model's {spec.name} is {apart:.3g} off its masked dense twin")
