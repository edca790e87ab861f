"""SparseGPT: remove weights column by column, and let the columns to come make up for each.

Source: Frantar and Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", arXiv
2301.00774. Numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .patterns import NofM, Pattern

COLUMNS_AT_ONCE = 128  # for which a mask is chosen together, given all updates from the columns before
TINY = 1e-100  # a mean square input below this tells nothing
MAX_DAMPING = 10.0  # of the mean diagonal


@dataclass(frozen=True)
class SparseGptSettings:
    """`damping`: share of the mean diagonal of X^T X that is added to it.

    `sequential`: each layer sees what the sparse layers before it make, for one run over the data per layer; without,
    layers see what the dense ones make, as many in one run as there is room for.
    """

    damping: float = 0.01
    sequential: bool = True


def sparsegpt(
    cube: np.ndarray,
    moments: np.ndarray,
    pattern: Pattern,
    ratio: float,
    settings: SparseGptSettings = SparseGptSettings(),
) -> np.ndarray | None:
    """Return weights [outputs, inputs, kernel] with a share `ratio` of zeros and the others moved to make up for them.

    `moments` is X^T X [inputs * kernel, inputs * kernel], float64, of the inputs that every output sees. Weights of
    a pattern N:M have its own ratio. None where the moments tell nothing, since no input was ever above zero.
    """
    outputs, inputs, kernel = cube.shape
    order = np.arange(inputs * kernel)
    if isinstance(pattern, NofM):  # neighbours along the inputs must be neighbours
        order = order.reshape(inputs, kernel).T.reshape(-1)
    factor = _factor(moments[np.ix_(order, order)], settings)
    if factor is None:
        return None
    matrix = cube.reshape(outputs, -1)[:, order].astype(np.float64)
    swept = _sweep(matrix, factor, pattern, ratio)
    found = np.empty_like(swept)
    found[:, order] = swept
    return found.reshape(cube.shape).astype(np.float32)


def _factor(hessian: np.ndarray, settings: SparseGptSettings) -> np.ndarray | None:
    """Return the upper Cholesky factor of the inverse Hessian."""
    diagonal = np.diag(hessian).copy()
    mean = float(diagonal.mean())
    if not mean > TINY:
        return None
    scaled = hessian / mean
    dead = diagonal <= 0
    scaled[dead, dead] = 1
    damping = max(settings.damping, 1e-6)
    while damping <= MAX_DAMPING:
        damped = scaled + np.eye(len(scaled)) * damping
        try:
            np.linalg.cholesky(damped)  # refuses what is not positive definite; `inv` would not
            return np.ascontiguousarray(np.linalg.cholesky(np.linalg.inv(damped)).T)
        except np.linalg.LinAlgError:
            damping *= 10
    return None


def _sweep(matrix: np.ndarray, factor: np.ndarray, pattern: Pattern, ratio: float) -> np.ndarray:
    rest, columns = matrix.copy(), matrix.shape[1]
    saving = 1 / np.square(np.diag(factor))  # of a weight's square: what its removal costs
    width = _width(pattern, columns)
    saved = (np.square(matrix) * saving).argmax(1)  # each output keeps the weight that costs most
    for start in range(0, columns, width):
        stop = min(start + width, columns)
        costs = _costs(rest[:, start:stop], factor[start:stop, start:stop], pattern)
        keep = _keep(costs, pattern, ratio, saved - start)
        errors = np.zeros((len(matrix), stop - start))
        for step in range(start, stop):
            gone = ~keep[:, step - start]
            error = np.where(gone, rest[:, step], 0.0) / factor[step, step]
            rest[gone, step] = 0.0
            rest[:, step + 1 : stop] -= error[:, None] * factor[step, step + 1 : stop]
            errors[:, step - start] = error
        rest[:, stop:] -= errors @ factor[start:stop, stop:]
    return rest


def _costs(weights: np.ndarray, factor: np.ndarray, pattern: Pattern) -> np.ndarray:
    """Return what removal costs, in squared error of the output, per weight: alone, or with its block's others.

    In a block, each weight is removed after those before it have moved it: inputs of neighbours are alike.
    """
    if isinstance(pattern, NofM) or pattern.columns == 1:
        return np.square(weights / np.diag(factor))
    found = np.empty_like(weights)
    for start in range(0, weights.shape[1], pattern.columns):
        block = slice(start, start + pattern.columns)
        found[:, block] = np.square(np.linalg.solve(factor[block, block].T, weights[:, block].T).T)
    return found


def _width(pattern: Pattern, columns: int) -> int:
    """Return how many columns get their mask together: whole groups or blocks."""
    size = pattern.among if isinstance(pattern, NofM) else pattern.columns
    return min(columns, max(1, COLUMNS_AT_ONCE // size) * size)


def _keep(costs: np.ndarray, pattern: Pattern, ratio: float, saved: np.ndarray) -> np.ndarray:
    """Return the mask [outputs, columns] of a slice; `saved` is the place in it that each output keeps in any case."""
    if isinstance(pattern, NofM):
        return pattern.mask(costs[:, :, None])[:, :, 0]
    cube = costs[:, :, None]
    units, sizes = pattern.units(cube), pattern.sizes(cube.shape)
    inside = (saved >= 0) & (saved < costs.shape[1])
    rows = np.flatnonzero(inside) // pattern.rows
    units[rows, saved[inside] // pattern.columns] = np.inf
    return pattern.spread(_cheapest_removed(units, sizes, ratio), cube.shape)[:, :, 0]


def _cheapest_removed(units: np.ndarray, sizes: np.ndarray, ratio: float) -> np.ndarray:
    order = np.argsort(units, axis=None, kind="stable")
    gone = order[np.cumsum(sizes.reshape(-1)[order]) <= ratio * sizes.sum() + 1e-9]
    kept = np.ones(units.size, bool)
    kept[gone] = False
    kept |= np.isinf(units.reshape(-1))
    return kept.reshape(units.shape)


def squared_error(difference: np.ndarray, moments: np.ndarray) -> float:
    """Return the squared error of a layer's outputs over all inputs, for a difference of weights [outputs, columns]."""
    wide = difference.astype(np.float64)
    return float(np.einsum("rc,rc->", wide @ moments, wide))
