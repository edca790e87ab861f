"""Errors and likenesses against targets of the same shape as the first output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from farrier_contracts.errors import InputError

from .scores import class_labels, scores_of

SMALLEST_PROBABILITY = 1e-12


def aligned(outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the first output and its target as float64 of one shape; raises InputError."""
    output, target = outputs[0], wanted[0]
    if output.shape != target.shape and output.size == target.size:
        target = target.reshape(output.shape)  # (rows,) for (rows, 1)
    if output.shape != target.shape:
        raise InputError(f"targets of shape {target.shape} do not fit an output of shape {output.shape}")
    return output.astype(np.float64), target.astype(np.float64)


class _Mean:
    """A mean over elements."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def value(self) -> float:
        """Return the mean."""
        return self._sum / self._count if self._count else 0.0


class MeanAbsolute(_Mean):
    """The mean of |output - target|."""

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        output, target = aligned(outputs, wanted)
        self._sum += float(np.abs(output - target).sum())
        self._count += output.size


class MeanSquared(_Mean):
    """The mean of (output - target) squared."""

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        output, target = aligned(outputs, wanted)
        self._sum += float(np.square(output - target).sum())
        self._count += output.size


class Cosine(_Mean):
    """The mean over rows of the cosine between output and target."""

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        output, target = aligned(outputs, wanted)
        self._sum += float(cosines(output, target).sum())
        self._count += len(output)


class Perplexity(_Mean):
    """e to the mean negative log-likelihood of the labels; outputs are logits, or probabilities if they sum to 1."""

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        scores = scores_of(outputs).astype(np.float64)
        labels = class_labels(wanted[0], scores)
        if is_distribution(scores):
            logs = np.log(np.maximum(scores, SMALLEST_PROBABILITY))
        else:
            logs = scores - scores.max(axis=-1, keepdims=True)
            logs -= np.log(np.exp(logs).sum(axis=-1, keepdims=True))
        self._sum -= float(np.take_along_axis(logs, labels[..., None], axis=-1).sum())
        self._count += labels.size

    def value(self) -> float:
        """Return the perplexity."""
        return math.exp(min(super().value(), 700.0))


def is_distribution(scores: np.ndarray) -> bool:
    """Say whether the last axis holds probabilities that sum to one."""
    return bool((scores >= 0).all() and np.allclose(scores.sum(axis=-1), 1.0, atol=1e-3))


def cosines(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the cosine between each pair of rows; two zero rows count as equal."""
    a, b = (x.reshape(len(x), -1).astype(np.float64) for x in (one, other))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return np.where(both_zero, 1.0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1.0))
