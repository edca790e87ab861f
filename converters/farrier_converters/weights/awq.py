"""AWQ: scale up the input channels whose activations are large before rounding, and clip where that errs less.

Lin, Tang, Tang, Yang, Chen, Wang, Xiao, Dang, Gan, Han 2023, "AWQ: Activation-aware Weight Quantization for LLM
Compression and Acceleration". Errors are those of the layer's output on the calibration inputs, by their second
moments. Numpy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .gptq import best_rows, output_error
from .grid import SHRINK, Grid, Quantized, into_blocks, round_to_nearest


@dataclass(frozen=True)
class AwqSettings:
    """`steps` exponents between 0 (no scaling) and 1 are tried; `clip`: search each block's range as well."""

    steps: int = 20
    clip: bool = True


def search_scales(
    matrices: Sequence[np.ndarray],
    hessian: np.ndarray,
    grid: Grid,
    size: int,
    settings: AwqSettings = AwqSettings(),
) -> np.ndarray:
    """Return factors float32 [columns] for the columns of matrices [rows, columns] that read the same input.

    A factor is a power of the column's root mean square input (the paper: its mean magnitude), also over the rest of
    the power of the column's mean weight (as the authors' code does later); the one is taken that leaves the least
    output error over all matrices, and all ones where none does better than no scaling.
    """
    strength = _spread(np.sqrt(np.maximum(np.diag(hessian), 0)))
    weight = _spread(np.asarray(np.mean([np.abs(matrix).mean(0) for matrix in matrices], axis=0), np.float64))
    best, factors = np.inf, np.ones(len(strength), np.float32)
    for share in np.linspace(0, 1, settings.steps + 1):
        for powers in (strength**share, strength**share / weight ** (1 - share)):
            balanced = (powers / np.sqrt(powers.max() * powers.min())).astype(np.float32)
            error = sum(_error(matrix, hessian, grid, size, balanced) for matrix in matrices)
            if error < best:
                best, factors = error, balanced
    return factors


def _spread(magnitudes: np.ndarray) -> np.ndarray:
    """Keep magnitudes within a factor of 10,000, so that no column is scaled away."""
    top = magnitudes.max(initial=0)
    return np.maximum(magnitudes, top * 1e-4) if top else np.ones_like(magnitudes)


def awq(
    matrix: np.ndarray, hessian: np.ndarray, grid: Grid, size: int, settings: AwqSettings = AwqSettings()
) -> Quantized:
    """Round a matrix that is already scaled, with each block clipped where that errs less on the inputs.

    `hessian` are the second moments of the inputs that the scaled matrix reads. No row errs more than under plain
    rounding to nearest.
    """
    plain = round_to_nearest(matrix, grid, size)
    if not settings.clip:
        return plain
    return best_rows(matrix, hessian, [plain, _clipped(matrix, hessian, plain)])


def _error(matrix: np.ndarray, hessian: np.ndarray, grid: Grid, size: int, factors: np.ndarray) -> float:
    rounded = round_to_nearest(matrix * factors, grid, size).values() / factors
    return float(output_error(rounded - matrix, hessian).sum())


def _clipped(matrix: np.ndarray, hessian: np.ndarray, plain: Quantized) -> Quantized:
    """Shrink each block's range to where the output error of the block alone is least."""
    grid, size = plain.grid, plain.codes.shape[-1]
    blocks = into_blocks(matrix.astype(np.float32), size)
    codes, scales = plain.codes.copy(), plain.scales.copy()
    zeros = None if plain.zeros is None else plain.zeros.copy()
    for number in range(blocks.shape[1]):
        inside = slice(number * size, min((number + 1) * size, matrix.shape[1]))
        part, moments = blocks[:, number], np.zeros((size, size))
        width = inside.stop - inside.start
        moments[:width, :width] = hessian[inside, inside]
        best = np.full(len(part), np.inf)
        for share in SHRINK:
            top = np.abs(part).max(-1, keepdims=True) * np.float32(share)
            scale, point = grid.fit(np.clip(part, -top, top))
            zero = None if point is None else point[:, None]
            tried = grid.encode(part, scale[:, None], zero)
            error = output_error(grid.decode(tried, scale[:, None], zero) - part, moments)
            better = error < best
            codes[better, number], scales[better, number] = tried[better], scale[better]
            if zeros is not None and point is not None:
                zeros[better, number] = point[better]
            best = np.where(better, error, best)
    return replace(plain, codes=codes, scales=scales, zeros=zeros)
