"""Agreement with the float model, for data without labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import cosines, is_distribution


class Agreement:
    """The mean over outputs: equal best class where an output looks like a classifier's, else the cosine.

    An output of shape (rows, classes) looks like a classifier's where it holds probabilities or is the only one.
    """

    decisions = True

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        for output, reference in zip(outputs, wanted, strict=True):
            if output.shape != reference.shape:
                self._count += len(reference)  # nothing agrees: the rows cannot even be laid side by side
                continue
            alike = _rows(output, reference, only=len(wanted) == 1, decisions=self.decisions)
            self._sum += float(alike.sum())
            self._count += len(output)

    def value(self) -> float:
        """Return the agreement, 1 for the same answers."""
        return self._sum / self._count if self._count else 1.0


class Likeness(Agreement):
    """The same, with every output by its cosine: which class is best means nothing on made-up inputs."""

    decisions = False


def _rows(output: np.ndarray, reference: np.ndarray, *, only: bool, decisions: bool) -> np.ndarray:
    if decisions and reference.ndim == 2 and reference.shape[1] > 1 and (only or is_distribution(reference)):
        return output.argmax(axis=1) == reference.argmax(axis=1)
    if not np.issubdtype(reference.dtype, np.floating):
        same = output == reference
        return same.reshape(len(same), -1).mean(axis=1)
    return cosines(output, reference)
