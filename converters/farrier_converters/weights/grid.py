"""Blockwise grids: what few bits can stand for, and how a block of weights gets its scale. No graph, no I/O."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .scales import HalfScales, ScaleForm

HALF = HalfScales()
# The 16 levels of NF4: quantiles of the normal distribution (Dettmers et al. 2023, "QLoRA", appendix E).
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
     -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
     0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
     0.7229568362236023, 1.0],
    np.float32,
)  # fmt: skip
SHRINK = np.linspace(1.0, 0.4, 25)  # shares of a block's range that the search for its scale tries
ROWS_AT_ONCE = 1 << 20  # weights, in one step of that search


@dataclass(frozen=True)
class Quantized:
    """A matrix [rows, columns] on a grid: codes uint8 [rows, blocks, size], scales float32 [rows, blocks].

    `zeros` uint8 [rows, blocks] are the codes that stand for 0, or None for the grid's own. Columns beyond
    `columns` in the last block hold the code of 0.
    """

    grid: Grid
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray | None
    columns: int

    def values(self) -> np.ndarray:
        """Return what the codes stand for: float32 [rows, columns]."""
        zeros = None if self.zeros is None else self.zeros[..., None]
        full = self.grid.decode(self.codes, self.scales[..., None], zeros)
        return full.reshape(len(full), -1)[:, : self.columns]


@dataclass(frozen=True)
class Grid:
    """2^bits levels per block: evenly spaced, or those of a `codebook` (float32, 2^bits values in -1..1).

    Symmetric grids have no zero point: the weight of largest magnitude takes the level -2^(bits-1), whatever its
    sign, since scales may be negative: one level more than in a grid that mirrors itself. Scales are rounded to what
    they are stored as before weights are rounded to them.
    """

    bits: int
    symmetric: bool = True
    codebook: np.ndarray | None = None
    scale_form: ScaleForm = HALF

    @property
    def zero(self) -> int:
        """The code that stands for 0 where there are no zero points."""
        return 1 << (self.bits - 1) if self.codebook is None else int(np.abs(self.codebook).argmin())

    def fit(
        self, blocks: np.ndarray, *, importance: np.ndarray | None = None, search: bool = False
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return scales and zero points [...] for blocks [..., size].

        With `search`, each block's range is shrunk to where the squared error is least, weighted by `importance`
        (broadcast against the blocks: how much an error in a column counts).
        """
        if not search:
            return self._scale(blocks, 1.0)
        scales, zeros = self._scale(blocks, 1.0)
        best = self.error(blocks, scales, zeros, importance)
        for share in SHRINK[1:]:
            candidate, point = self._scale(blocks, float(share))
            error = self.error(blocks, candidate, point, importance)
            better = error < best
            scales = np.where(better, candidate, scales)
            if zeros is not None and point is not None:
                zeros = np.where(better, point, zeros)
            best = np.where(better, error, best)
        return scales, zeros

    def error(
        self, blocks: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None, importance: np.ndarray | None
    ) -> np.ndarray:
        """Return the weighted squared error of each block."""
        point = None if zeros is None else zeros[..., None]
        step = scales[..., None]
        difference = self.decode(self.encode(blocks, step, point), step, point) - blocks
        squared = difference * difference
        return (squared if importance is None else squared * importance).sum(-1)

    def encode(self, values: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None) -> np.ndarray:
        """Return the codes of the nearest levels, uint8; all arguments broadcast."""
        if self.codebook is not None:
            edges = (self.codebook[1:] + self.codebook[:-1]) / 2
            return np.searchsorted(edges, values / scales).astype(np.uint8)
        point = np.float32(self.zero) if zeros is None else zeros.astype(np.float32)
        return np.clip(np.rint(values / scales) + point, 0, (1 << self.bits) - 1).astype(np.uint8)

    def decode(self, codes: np.ndarray, scales: np.ndarray, zeros: np.ndarray | None) -> np.ndarray:
        """Return the float32 values that codes stand for."""
        if self.codebook is not None:
            return self.codebook[codes] * scales
        point = np.float32(self.zero) if zeros is None else zeros.astype(np.float32)
        return (codes.astype(np.float32) - point) * scales

    def _scale(self, blocks: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray | None]:
        low, high = blocks.min(-1), blocks.max(-1)
        if self.codebook is not None:
            return self.scale_form.round(np.maximum(-low, high) * share), None
        if self.symmetric:
            extreme = np.where(-low > high, low, high)
            return self.scale_form.round(extreme * (share / -(1 << (self.bits - 1)))), None
        low, high = np.minimum(low, 0) * share, np.maximum(high, 0) * share
        levels = (1 << self.bits) - 1
        scales = self.scale_form.round((high - low) / levels)
        return scales, np.clip(np.rint(-low / scales), 0, levels).astype(np.uint8)


def into_blocks(matrix: np.ndarray, size: int) -> np.ndarray:
    """Cut rows into blocks, the last filled up with zeros: [rows, columns] -> [rows, blocks, size]."""
    rows, columns = matrix.shape
    count = -(-columns // size)
    return np.pad(matrix, ((0, 0), (0, count * size - columns))).reshape(rows, count, size)


def round_to_nearest(
    matrix: np.ndarray, grid: Grid, size: int, *, importance: np.ndarray | None = None, search: bool = False
) -> Quantized:
    """Quantize a matrix [rows, columns] block by block, each weight to its nearest level.

    `importance` [columns] weighs the search for scales (see `Grid.fit`).
    """
    blocks = into_blocks(matrix.astype(np.float32), size)
    weights = None if importance is None else into_blocks(importance[None].astype(np.float32), size)[0]
    scales = np.empty(blocks.shape[:2], np.float32)
    zeros = None if grid.symmetric or grid.codebook is not None else np.empty(blocks.shape[:2], np.uint8)
    codes = np.empty(blocks.shape, np.uint8)
    for part in _parts(blocks):
        scales[part], points = grid.fit(blocks[part], importance=weights, search=search)
        if zeros is not None and points is not None:
            zeros[part] = points
        codes[part] = grid.encode(
            blocks[part], scales[part][..., None], None if points is None else points[..., None]
        )
    return Quantized(grid, codes, scales, zeros, matrix.shape[1])


def _parts(blocks: np.ndarray) -> Iterator[slice]:
    step = max(1, ROWS_AT_ONCE // max(1, blocks[0].size if len(blocks) else 1))
    return (slice(start, start + step) for start in range(0, len(blocks), step))
