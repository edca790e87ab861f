"""Where zeros may be: anywhere, in N of M neighbours, or in whole blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from farrier_contracts.errors import UsageError

from .view import View

FORMS = '"unstructured", "2:4" (N kept of M inputs), "4x1" or "1x16" (rows x columns)'


@dataclass(frozen=True)
class Blocks:
    """Blocks of `rows` outputs x `columns` of the matrix view [outputs, inputs * kernel], aligned to its start.

    A block is kept or removed whole, and a row of blocks always keeps one. A block at the end may be smaller; its score
    is the mean of the weights that it has. Blocks of 1 x 1 are no pattern: each weight for itself.
    """

    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.columns}" if self.size > 1 else "unstructured"

    @property
    def size(self) -> int:
        """The number of weights in a whole block."""
        return self.rows * self.columns

    def obstacle(self, view: View) -> str | None:
        """Name a layer in which one block is everything, or that a block would tie to another group's inputs."""
        if view.groups > 1 and view.outputs // view.groups % self.rows:
            return f"its groups of {view.outputs // view.groups} outputs are no multiple of {self.rows}"
        if self.size > 1 and view.outputs <= self.rows and view.inputs * view.kernel <= self.columns:
            return (
                f"its {view.outputs} x {view.inputs * view.kernel} weights are not more than one block {self}"
            )
        return None

    def units(self, scores: np.ndarray) -> np.ndarray:
        """Return the mean score of each block [block rows, block columns]."""
        matrix = scores.reshape(len(scores), -1)
        if self.size == 1:
            return matrix
        down = np.add.reduceat(matrix, np.arange(0, matrix.shape[0], self.rows), 0)
        sums = np.add.reduceat(down, np.arange(0, matrix.shape[1], self.columns), 1)
        return sums / self.sizes(scores.shape)

    def sizes(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return how many weights each block holds."""
        high, wide = shape[0], shape[1] * shape[2]
        rows = np.minimum(self.rows, high - np.arange(0, high, self.rows))
        columns = np.minimum(self.columns, wide - np.arange(0, wide, self.columns))
        return rows[:, None] * columns[None, :]

    def spread(self, kept: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return the mask of weights."""
        whole = kept.repeat(self.rows, 0).repeat(self.columns, 1)
        return whole[: shape[0], : shape[1] * shape[2]].reshape(shape)


@dataclass(frozen=True)
class NofM:
    """At most `kept` of each `among` neighbours along the inputs, for each output and kernel pixel.

    2:4 is what NVIDIA's sparse tensor cores read (Mishra et al., "Accelerating Sparse Deep Neural Networks", arXiv
    2104.08378). The units here are the groups of `among`; what is decided of a unit is whether it has the pattern yet.
    """

    kept: int
    among: int

    def __str__(self) -> str:
        return f"{self.kept}:{self.among}"

    @property
    def ratio(self) -> float:
        """The share of zeros."""
        return 1 - self.kept / self.among

    def obstacle(self, view: View) -> str | None:
        """Name a layer whose inputs do not fall into groups."""
        if view.inputs % self.among:
            return f"its {view.inputs} inputs are no multiple of {self.among}"
        return None

    def groups(self, cube: np.ndarray) -> np.ndarray:
        """Return the cube as groups [outputs, kernel, groups, among]."""
        return np.moveaxis(cube, 1, 2).reshape(len(cube), cube.shape[2], -1, self.among)

    def ungroup(self, groups: np.ndarray) -> np.ndarray:
        """Undo `groups`."""
        outputs, kernel = groups.shape[:2]
        return np.moveaxis(groups.reshape(outputs, kernel, -1), 1, 2)

    def mask(self, scores: np.ndarray) -> np.ndarray:
        """Return the mask that keeps the best of each group; the first wins a tie."""
        order = np.argsort(-self.groups(scores), axis=-1, kind="stable")
        mask = np.zeros(order.shape, bool)
        np.put_along_axis(mask, order[..., : self.kept], values=True, axis=-1)
        return self.ungroup(mask)

    def lost(self, scores: np.ndarray) -> np.ndarray:
        """Return what each group [outputs, kernel * groups] loses to the pattern."""
        return (
            np.sort(self.groups(scores), axis=-1)[..., : self.among - self.kept]
            .sum(-1)
            .reshape(len(scores), -1)
        )

    def partial(self, scores: np.ndarray, share: float) -> np.ndarray:
        """Return a mask that gives the pattern to a share of the groups: those that lose least by it."""
        mask, lost = self.mask(scores), self.lost(scores)
        count = min(lost.size, round(share * lost.size))
        if count == lost.size:
            return mask
        chosen = np.zeros(lost.size, bool)
        chosen[np.argsort(lost, axis=None, kind="stable")[:count]] = True
        groups = self.groups(mask) | ~chosen.reshape(self.groups(mask).shape[:3])[..., None]
        return self.ungroup(groups)


Pattern = Blocks | NofM
UNSTRUCTURED = Blocks(1, 1)


def parse(text: str) -> Pattern:
    """Return the pattern of that name; raises UsageError."""
    if text == "unstructured":
        return UNSTRUCTURED
    found = re.fullmatch(r"([1-9]\d{0,3})([:x])([1-9]\d{0,3})", text)
    if found is None:
        raise UsageError(f"unknown pattern {text!r}; choose {FORMS}")
    left, kind, right = int(found[1]), found[2], int(found[3])
    if kind == ":":
        if left >= right:
            raise UsageError(f"the pattern {text} removes nothing: it keeps {left} of every {right} inputs")
        return NofM(left, right)
    return Blocks(left, right)
