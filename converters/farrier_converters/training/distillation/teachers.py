"""Teachers at work: no gradients, only what is asked for, and each row of plain data answered once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from farrier_contracts.errors import InputError, UsageError

from ..module import OnnxModule

CACHE_BYTES = 1 << 29  # of answers kept, at most
DIGEST_BYTES = 16

Kept = dict[str, Tensor]


@dataclass
class Teachers:
    """Several teachers with their weights (equal ones where none are given; they are normalized).

    With `cache`, answers are kept by the content of each row up to `cache_bytes`: worth it where rows come back
    unchanged, so not with augmentation. Only on the processor, where looking at a row is free.
    Raises UsageError for weights that do not fit.
    """

    modules: Sequence[OnnxModule]
    weights: Sequence[float] = ()
    cache: bool = False
    cache_bytes: int = CACHE_BYTES
    order: Sequence[
        str
    ] = ()  # the student's inputs: a teacher that calls them otherwise gets them in this order
    _rows: dict[tuple[int, bytes], Kept] = field(default_factory=dict)
    _bytes: int = 0

    def __post_init__(self) -> None:
        """Check and normalize the weights."""
        if not self.modules:
            raise UsageError("distillation needs a teacher")
        given = [float(w) for w in self.weights] or [1.0] * len(self.modules)
        if len(given) != len(self.modules) or min(given) < 0 or sum(given) <= 0:
            raise UsageError(
                f"{len(self.modules)} teachers need as many weights, none below zero; got {given}"
            )
        self.weights = [w / sum(given) for w in given]

    def to(self, device: torch.device) -> None:
        """Move the teachers."""
        for module in self.modules:
            module.to(device).eval()

    def answers(
        self, feeds: Mapping[str, Tensor], keep: Sequence[Collection[str]]
    ) -> list[dict[str, Tensor]]:
        """Return, for each teacher, its outputs and the tensors of `keep` for it, by name."""
        return [self._answer(number, feeds, keep[number]) for number in range(len(self.modules))]

    def _answer(self, number: int, feeds: Mapping[str, Tensor], keep: Collection[str]) -> dict[str, Tensor]:
        module = self.modules[number]
        if not self.cache or any(value.device.type != "cpu" for value in feeds.values()):
            return self._ask(module, feeds, keep)
        rows = _digests(feeds)
        if rows is None:
            return self._ask(module, feeds, keep)
        keys = [(number, row) for row in rows]
        missing = [i for i, key in enumerate(keys) if key not in self._rows]
        fresh = self._ask(module, {n: v[missing] for n, v in feeds.items()}, keep) if missing else {}
        if any(value.shape[:1] != (len(missing),) for value in fresh.values()):
            self.cache = False  # an output that is not one result per row
            return self._ask(module, feeds, keep)
        new = {keys[i]: {n: v[place] for n, v in fresh.items()} for place, i in enumerate(missing)}
        for key, row in new.items():
            size = sum(v.nelement() * v.element_size() for v in row.values())
            if self._bytes + size <= self.cache_bytes:
                self._rows[key] = {n: v.clone() for n, v in row.items()}
                self._bytes += size
        found = [new[key] if key in new else self._rows[key] for key in keys]
        return {name: torch.stack([row[name] for row in found]) for name in found[0]}

    def _ask(
        self, module: OnnxModule, feeds: Mapping[str, Tensor], keep: Collection[str]
    ) -> dict[str, Tensor]:
        specs = [spec.name for spec in module.model.inputs]
        given = dict(feeds)
        if any(name not in given for name in specs):
            if len(specs) != len(self.order):
                raise InputError(
                    f"the teacher {module.model.name} wants the inputs {', '.join(specs)}; the student has"
                    f" {', '.join(self.order)}"
                )
            given = {name: feeds[other] for name, other in zip(specs, self.order, strict=True)}
        with torch.no_grad():
            found = module.compute({name: given[name] for name in specs}, keep)
        return {name: v.float() if v.is_floating_point() else v for name, v in found.items()}


def _digests(feeds: Mapping[str, Tensor]) -> list[bytes] | None:
    """Return a digest of each row over all inputs; None where inputs have no common rows."""
    counts = {len(value) if value.ndim else -1 for value in feeds.values()}
    if len(counts) != 1 or counts == {-1}:
        return None
    rows = [hashlib.blake2b(digest_size=DIGEST_BYTES) for _ in range(counts.pop())]
    for name in sorted(feeds):
        array = feeds[name].contiguous().numpy()
        for hasher, row in zip(rows, array, strict=True):
            hasher.update(row.tobytes())
    return [hasher.digest() for hasher in rows]
