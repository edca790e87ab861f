"""Scores of classifiers: the classes are the last axis of the first output, labels are class numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farrier_contracts.errors import InputError

THRESHOLD = 0.5  # a classifier with one output says yes above it


def class_labels(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return labels as whole numbers that fit the scores' leading axes; raises InputError."""
    shape, classes = scores.shape[:-1], max(scores.shape[-1], 2)
    if labels.size != int(np.prod(shape)):
        raise InputError(
            f"labels of shape {labels.shape} do not fit an output of shape {scores.shape}; give one class per row"
        )
    whole = labels.reshape(shape).astype(np.int64)
    if not np.array_equal(whole, labels.reshape(shape)):
        raise InputError("labels must be whole class numbers for this metric; use mse or mae for real values")
    if whole.size and (whole.min() < 0 or whole.max() >= classes):
        wrong = whole.max() if whole.max() >= classes else whole.min()
        raise InputError(f"label {wrong} is out of range: the model has classes 0 to {classes - 1}")
    return whole


def scores_of(outputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return the first output with its class axis last, one column added for outputs without one."""
    scores = outputs[0]
    return scores[:, None] if scores.ndim == 1 else scores


def predictions(scores: np.ndarray) -> np.ndarray:
    """Return the class with the highest score, or the thresholded single score."""
    if scores.shape[-1] == 1:
        return (scores[..., 0] > THRESHOLD).astype(np.int64)
    return scores.argmax(axis=-1)


class Accuracy:
    """The share of rows whose best class is the label."""

    def __init__(self) -> None:
        self._right, self._rows = 0, 0

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        scores = scores_of(outputs)
        labels = class_labels(wanted[0], scores)
        self._right += int((predictions(scores) == labels).sum())
        self._rows += labels.size

    def value(self) -> float:
        """Return right / all."""
        return self._right / self._rows if self._rows else 0.0


class TopK:
    """The share of rows whose label is among the k best classes."""

    def __init__(self, k: int) -> None:
        self._k, self._right, self._rows = k, 0, 0

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        scores = scores_of(outputs)
        labels = class_labels(wanted[0], scores)
        if scores.shape[-1] <= self._k:
            raise InputError(f"top{self._k} says nothing about {scores.shape[-1]} classes; use accuracy")
        best = np.argpartition(scores, -self._k, axis=-1)[..., -self._k :]
        self._right += int((best == labels[..., None]).any(axis=-1).sum())
        self._rows += labels.size

    def value(self) -> float:
        """Return right / all."""
        return self._right / self._rows if self._rows else 0.0


class F1:
    """The harmonic mean of precision and recall: of class 1 for two classes, else the mean over classes."""

    def __init__(self) -> None:
        self._counts: np.ndarray | None = None  # confusion matrix: label x prediction

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Count one batch."""
        scores = scores_of(outputs)
        labels = class_labels(wanted[0], scores)
        classes = max(scores.shape[-1], 2)
        if self._counts is None:
            self._counts = np.zeros((classes, classes), np.int64)
        np.add.at(self._counts, (labels.ravel(), predictions(scores).ravel()), 1)

    def value(self) -> float:
        """Return F1; a class that neither occurs nor is predicted does not count."""
        if self._counts is None:
            return 0.0
        hits = self._counts.diagonal()
        totals = self._counts.sum(axis=0) + self._counts.sum(axis=1)
        f1 = 2 * hits / np.maximum(totals, 1)
        return float(f1[1] if len(f1) == 2 else f1[totals > 0].mean())


class AreaUnderCurve:
    """The area under the ROC curve, ties counted half; one against the rest, averaged, for many classes."""

    def __init__(self) -> None:
        self._scores: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, outputs: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> None:
        """Keep one batch's scores: ranks need all of them."""
        scores = scores_of(outputs)
        self._labels.append(class_labels(wanted[0], scores).ravel())
        self._scores.append(scores.reshape(-1, scores.shape[-1]))

    def value(self) -> float:
        """Return the area; raises InputError where only one class occurs."""
        scores, labels = np.concatenate(self._scores), np.concatenate(self._labels)
        if scores.shape[1] == 1:
            areas = [_area(scores[:, 0], labels == 1)]
        elif scores.shape[1] == 2:
            areas = [_area(scores[:, 1] - scores[:, 0], labels == 1)]
        else:
            present = [c for c in range(scores.shape[1]) if 0 < (labels == c).sum() < len(labels)]
            areas = [_area(scores[:, c], labels == c) for c in present]
        known = [area for area in areas if area is not None]
        if not known:
            raise InputError("auc needs rows of at least two classes; the labels hold one")
        return float(np.mean(known))


def _area(scores: np.ndarray, positive: np.ndarray) -> float | None:
    """Return the Mann-Whitney statistic over n+ n-, with average ranks for ties."""
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))
