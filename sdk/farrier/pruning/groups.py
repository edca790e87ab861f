"""The dependency graph of a model as a person reads it: what hangs together, what stays and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_converters import importers
from farrier_converters import model as models
from farrier_converters.model import Model
from farrier_converters.passes import Context, get
from farrier_converters.pruning.allocate.costs import Costs
from farrier_converters.pruning.blocks import Block, blocks
from farrier_converters.pruning.group import Groups, groups_of
from farrier_converters.pruning.separate import separate
from farrier_converters.pruning.staircase import Staircase, default, store

from .request import Place, place


@dataclass(frozen=True)
class Entry:
    """A group: its channels, the layers that make them and that read them, what each carries, the next good width.

    `parameters` and `multiply_adds` are those that go with all channels but one; `next_width` is the largest count
    below all channels that ends on a step of the target, None where there is none.
    """

    name: str
    channels: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    parameters: int
    multiply_adds: int
    next_width: int | None


@dataclass(frozen=True)
class Listing:
    """All groups of a model, the blocks that can be left out, and what stays."""

    model: str
    target: str
    engine: str
    groups: tuple[Entry, ...]
    blocks: tuple[Block, ...]
    frozen: tuple[Any, ...]
    multiply_adds: int
    parameters: int
    notes: tuple[str, ...] = ()

    def to_document(self) -> dict[str, Any]:
        """Return the form of `farrier prune --show-groups --json`."""
        return {
            "model": self.model,
            "target": self.target,
            "engine": self.engine,
            "multiply_adds": self.multiply_adds,
            "parameters": self.parameters,
            "groups": [
                {**vars(entry), "makers": list(entry.makers), "readers": list(entry.readers)}
                for entry in self.groups
            ],
            "blocks": [
                {
                    "name": b.name,
                    "input": b.input,
                    "ops": list(b.ops),
                    "parameters": b.parameters,
                    "family": b.family,
                }
                for b in self.blocks
            ],
            "frozen": [dict(vars(item)) for item in self.frozen],
            "notes": list(self.notes),
        }


def groups(
    model: str | Path, *, target: str = "host", engine: str | None = None, precision: str = "fp32"
) -> Listing:
    """Return which channels of a model hang together, and what is left whole and why; PyTorch is not needed.

    Raises UsageError or InputError in one sentence.
    """
    where = place(target, engine, precision)
    source = read(Path(model))
    found = groups_of(source)
    steps = store.known(where.toolchain.engine, precision) if where.here else None
    return listing(found, where, steps or default(where.toolchain.engine, precision, where.target.arch))


def read(path: Path) -> Model:
    """Return a model cleaned and with its shared constants taken apart, as pruning looks at it; raises InputError."""
    if importers.foreign(path):
        source = importers.read(path, max_bytes=models.ModelSettings().max_bytes).model
    else:
        source = models.load(path)
    clean = get("clean")
    return separate(clean.run(source, clean.options(), Context()))


def listing(found: Groups, where: Place, staircase: Staircase) -> Listing:
    """Return the groups with what they carry."""
    costs = Costs(found, staircase)
    nothing = np.zeros(costs.count, bool)
    whole = costs.totals(nothing)
    entries = []
    for group in found.groups:
        gone = nothing.copy()
        gone[costs.units(group.name)[1:]] = True
        left = costs.totals(gone)
        entries.append(
            Entry(
                group.name,
                group.size,
                tuple(dict.fromkeys(p.node for p in group.places if p.makes)),
                tuple(dict.fromkeys(p.node for p in group.places if not p.makes)),
                whole.parameters - left.parameters,
                whole.multiply_adds - left.multiply_adds,
                _next(costs, group.name),
            )
        )
    return Listing(
        found.model.name,
        where.target.name,
        where.toolchain.engine,
        tuple(entries),
        blocks(found.model),
        found.frozen,
        whole.multiply_adds,
        whole.parameters,
        where.notes,
    )


def _next(costs: Costs, name: str) -> int | None:
    """Return the widest count of a group's channels below all of them at which a layer ends on a step."""
    units = set(costs.units(name).tolist())
    best: int | None = None
    for node in costs.touching[name]:
        for axis in (node.outputs, node.inputs):
            mine = [count for unit, count in zip(axis.units, axis.counts, strict=True) if int(unit) in units]
            if not mine or not node.weighted:
                continue
            for good in costs.good_widths(node.layer.kind, axis.size):
                fewer, rest = divmod(axis.size - good, int(mine[0]))
                if not rest and 0 < fewer < len(units):
                    best = max(best or 0, len(units) - fewer)
    return best
