"""What became sparse, how much, and what did not, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from ..model import Model
from . import layers as layers_
from .layers import Found, Left
from .patterns import NofM, Pattern


@dataclass(frozen=True)
class LayerSparsity:
    """The zeros of one constant of weights. `follows`: whether all of it has the pattern. `note`: what was special."""

    label: str
    op: str
    weight: str
    shape: tuple[int, ...]
    elements: int
    zeros: int
    follows: bool
    note: str = ""

    @property
    def sparsity(self) -> float:
        """The share of zeros."""
        return self.zeros / self.elements


@dataclass(frozen=True)
class SparsityReport:
    """The layers that were made sparse, in the order of the graph, and those that were left dense."""

    pattern: str
    ratio: float
    layers: tuple[LayerSparsity, ...]
    left: tuple[Left, ...]

    @property
    def sparsity(self) -> float:
        """The share of zeros over all sparse layers."""
        return sum(one.zeros for one in self.layers) / max(1, sum(one.elements for one in self.layers))

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return the table of a person: layer, operator, shape, share of zeros, what there is to say; a total last."""
        table = [
            (one.label, one.op, "x".join(map(str, one.shape)), f"{one.sparsity:.1%}", one.note)
            for one in self.layers
        ]
        table += [(one.label, one.op, "", "dense", one.reason) for one in self.left]
        elements = sum(one.elements for one in self.layers)
        return [*table, ("all sparse layers", "", f"{elements} weights", f"{self.sparsity:.1%}", "")]


def measure(
    model: Model,
    found: Found,
    pattern: Pattern,
    ratio: float,
    notes: Mapping[str, str] | None = None,
) -> SparsityReport:
    """Count the zeros of a model that was made sparse; `found` holds the layers as they were before."""
    every = layers_.find(model, tables=True).layers
    lines = []
    for name, layer in found.layers.items():
        now = every[name]
        zeros = int((now.value == 0).sum())
        note = (notes or {}).get(name, "")
        if not note and zeros < ratio * now.value.size and _bare(now.cube(), pattern):
            note = (
                f"each output keeps one {'weight' if str(pattern) == 'unstructured' else f'block {pattern}'}"
            )
        follows = conforms(now.cube(), pattern)
        lines.append(
            LayerSparsity(layer.label, layer.op, name, layer.view.shape, now.value.size, zeros, follows, note)
        )
    return SparsityReport(str(pattern), ratio, tuple(lines), tuple(found.left))


def conforms(cube: np.ndarray, pattern: Pattern) -> bool:
    """Say whether weights [outputs, inputs, kernel] have a pattern everywhere.

    Without a pattern, all do. A block counts as kept where more than half of it is not zero.
    """
    if isinstance(pattern, NofM):
        whole = cube.shape[1] % pattern.among == 0
        return whole and bool(((pattern.groups(cube) != 0).sum(-1) <= pattern.kept).all())
    present = (cube != 0).astype(np.float64)
    shares = pattern.units(present)
    return bool(((shares == 0) | (shares > 0.5)).all()) or pattern.size == 1


def sparse_layers(model: Model, *, at_least: float = 0.3, exclude: Collection[str] = ()) -> dict[str, float]:
    """Return the share of zeros of each constant of weights that has at least so many, by its name."""
    found = layers_.find(model, exclude=exclude, tables=True)
    shares = {name: float((layer.value == 0).mean()) for name, layer in found.layers.items()}
    return {name: share for name, share in shares.items() if share >= at_least}


def _bare(cube: np.ndarray, pattern: Pattern) -> bool:
    """Say whether no output has more than what it keeps in any case."""
    if isinstance(pattern, NofM):
        return False
    kept = (pattern.units((cube != 0).astype(np.float32)) > 0).sum(1)
    return bool((kept <= 1).all())
