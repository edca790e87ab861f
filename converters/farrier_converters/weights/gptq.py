"""GPTQ: round one column after the other, and let the columns to come make up for each error.

Frantar, Ashkboos, Hoefler, Alistarh 2022, "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers". Numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .grid import Grid, Quantized, into_blocks, round_to_nearest

COLUMNS_AT_ONCE = 128  # whose effect on later columns is applied in one product
TINY = 1e-100  # a mean square input below this tells nothing
MAX_DAMPING = 10.0  # of the mean diagonal; a Hessian that still has no factor leaves rounding to nearest


@dataclass(frozen=True)
class GptqSettings:
    """`damping`: share of the Hessian's mean diagonal added to it. `act_order`: most used columns first, with the
    scales of the original weights. `search`: scales of least error instead of the full range."""

    damping: float = 0.01
    act_order: bool = True
    search: bool = True


def output_error(difference: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """Return the squared output error of each row, d H d^T, for differences [rows, columns]."""
    wide = difference.astype(np.float64)
    return np.einsum("rc,rc->r", wide @ hessian, wide)


def gptq(
    matrix: np.ndarray, hessian: np.ndarray, grid: Grid, size: int, settings: GptqSettings = GptqSettings()
) -> Quantized:
    """Quantize a matrix [rows, columns], given the inputs' second moments X^T X [columns, columns], float64.

    Rows are independent: where the plain rounding of a row errs less on these inputs, that row keeps it, so that no
    row's output error is above round-to-nearest's.
    """
    importance = np.diag(hessian)
    plain = round_to_nearest(matrix, grid, size)
    starts = [plain]
    if settings.search:
        starts.append(round_to_nearest(matrix, grid, size, importance=importance, search=True))
    factor = _factor(hessian, settings)
    if factor is not None:
        starts.append(_sweep(matrix, *factor, grid, size, settings, importance, starts[-1]))
    return best_rows(matrix, hessian, starts)


def best_rows(matrix: np.ndarray, hessian: np.ndarray, candidates: list[Quantized]) -> Quantized:
    """Take each row from the candidate that errs least on it; the first wins a tie."""
    errors = np.stack([output_error(c.values() - matrix, hessian) for c in candidates])
    chosen = errors.argmin(0)

    def pick(parts: list[np.ndarray]) -> np.ndarray:
        return np.stack(parts)[chosen, np.arange(len(chosen))]

    first = candidates[0]
    zeros = [c.zeros for c in candidates if c.zeros is not None]
    return Quantized(
        first.grid,
        pick([c.codes for c in candidates]),
        pick([c.scales for c in candidates]),
        pick(zeros) if zeros else None,
        first.columns,
    )


def _factor(hessian: np.ndarray, settings: GptqSettings) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the order of columns and the upper Cholesky factor of the inverse Hessian in that order."""
    diagonal = np.diag(hessian).copy()
    columns = len(diagonal)
    order = np.argsort(-diagonal, kind="stable") if settings.act_order else np.arange(columns)
    sorted_hessian = hessian[np.ix_(order, order)].copy()
    dead = diagonal[order] <= 0
    sorted_hessian[dead, dead] = 1
    mean = float(diagonal.mean())
    if not mean > TINY:
        return None
    sorted_hessian /= mean
    damping = max(settings.damping, 1e-6)
    while damping <= MAX_DAMPING:
        damped = sorted_hessian + np.eye(columns) * damping
        try:
            np.linalg.cholesky(damped)  # refuses what is not positive definite; `inv` would not
            return order, np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
        except np.linalg.LinAlgError:
            damping *= 10
    return None


def _sweep(
    matrix: np.ndarray,
    order: np.ndarray,
    factor: np.ndarray,
    grid: Grid,
    size: int,
    settings: GptqSettings,
    importance: np.ndarray,
    static: Quantized,
) -> Quantized:
    rest = matrix[:, order].astype(np.float64)
    codes = np.zeros(static.codes.reshape(len(matrix), -1).shape, np.uint8) + static.codes.reshape(
        len(matrix), -1
    )
    scales = static.scales.copy()
    zeros = None if static.zeros is None else static.zeros.copy()
    columns = len(order)
    for start in range(0, columns, COLUMNS_AT_ONCE):
        stop = min(start + COLUMNS_AT_ONCE, columns)
        errors = np.zeros((len(matrix), stop - start))
        for step in range(start, stop):
            column = int(order[step])
            block = column // size
            if not settings.act_order and column % size == 0:
                # the lazy part of the update has not reached the columns past `stop`: bring the block up to date
                until = min(column + size, columns)
                fresh = rest[:, column:until].copy()
                if until > stop:
                    fresh[:, stop - column :] -= errors[:, : step - start] @ factor[start:step, stop:until]
                weights = importance[column:until].astype(np.float32)
                _fit_block(grid, fresh, weights, settings.search, size, scales, zeros, block)
            scale = scales[:, block]
            zero = None if zeros is None else zeros[:, block]
            value = rest[:, step].astype(np.float32)
            codes[:, column] = grid.encode(value, scale, zero)
            error = (rest[:, step] - grid.decode(codes[:, column], scale, zero)) / factor[step, step]
            rest[:, step + 1 : stop] -= error[:, None] * factor[step, step + 1 : stop]
            errors[:, step - start] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return Quantized(grid, codes.reshape(static.codes.shape), scales, zeros, static.columns)


def _fit_block(
    grid: Grid,
    values: np.ndarray,
    importance: np.ndarray,
    search: bool,
    size: int,
    scales: np.ndarray,
    zeros: np.ndarray | None,
    block: int,
) -> None:
    """Give a block, as earlier errors have left it, new scales and zero points."""
    padded = into_blocks(values.astype(np.float32), size)[:, 0]
    weights = into_blocks(importance[None], size)[0, 0]
    scales[:, block], points = grid.fit(padded, importance=weights, search=search)
    if zeros is not None and points is not None:
        zeros[:, block] = points
