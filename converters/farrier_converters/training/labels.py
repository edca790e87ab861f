"""What labels mean for a model's scores, decided and checked on the processor before a loss sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from farrier_contracts.errors import InputError

IGNORED = -100  # a class label that counts in no loss, as PyTorch has it
SUM_TOLERANCE = 1e-3  # of a row of class shares, whose sum is 1

CLASSES = "classes"  # whole numbers, one for each row (or position): classes lie on axis 1
TOKENS = "tokens"  # the same, where classes lie on the last axis, as language models have them
BINARY = "binary"  # 0 or 1 for each score
SHARES = "shares"  # what of each class is in a row, as mixing rows makes them
VALUES = "values"  # what the outputs should be
WHOLE = (CLASSES, TOKENS, BINARY)


def kind(whole: bool, labels: Sequence[int], scores: Sequence[int]) -> str:
    """Return what labels of this shape are for scores of that shape; `whole`: they are integers.

    Raises InputError where they fit in no way.
    """
    labels, scores = tuple(labels), tuple(scores)
    rows = labels[:1] == scores[:1]
    size = int(np.prod(labels))
    if not whole and rows and size == int(np.prod(scores)):
        return VALUES
    if whole and rows and len(scores) > 1:
        if size == int(np.prod(scores)):
            return BINARY
        if size == int(np.prod(scores[:1] + scores[2:])):
            return CLASSES
        if size == int(np.prod(scores[:-1])):
            return TOKENS
    if whole and labels == scores:
        return BINARY
    raise InputError(_misfit(whole, labels, scores))


def check(labels: np.ndarray, scores: Sequence[int]) -> str:
    """Return what the labels of a batch are, with a look at their values.

    Raises InputError for labels that do not fit scores of this shape, are out of range, or are no numbers.
    """
    if labels.dtype.kind not in "iubf":
        raise InputError(
            f"labels of type {labels.dtype} cannot be learned; give classes as integers, values as floats"
        )
    whole = labels.dtype.kind in "iub"
    found = kind(whole, labels.shape, scores)
    if whole:
        classes = {CLASSES: scores[1], TOKENS: scores[-1], BINARY: 2}[found] if len(scores) > 1 else 2
        _in_range(labels, classes, found)
        return found
    if not np.isfinite(labels).all():
        raise InputError("the labels hold values that are no finite numbers")
    if len(scores) == 2 and scores[1] > 1 and _shares(labels):
        return SHARES
    return found


def _in_range(labels: np.ndarray, classes: int, found: str) -> None:
    if not labels.size:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 and found != BINARY:
        given = labels[labels != IGNORED]
        low = int(given.min()) if given.size else 0
    if low >= 0 and high < classes:
        return
    wrong = high if high >= classes else low
    if found == BINARY:
        raise InputError(
            f"label {wrong} is out of range: with one score for each they are 0 or 1; values are learned as floats"
        )
    raise InputError(f"label {wrong} is out of range: the model has classes 0 to {classes - 1}")


def _shares(labels: np.ndarray) -> bool:
    return bool((labels >= 0).all()) and bool(np.abs(labels.sum(1) - 1).max(initial=0.0) < SUM_TOLERANCE)


def _misfit(whole: bool, labels: tuple[int, ...], scores: tuple[int, ...]) -> str:
    if labels[:1] != scores[:1]:
        count = labels[0] if labels else 0
        return f"a batch holds {count} labels for {scores[0] if scores else 0} rows"
    if not whole and len(scores) > 1 and int(np.prod(labels)) == int(np.prod(scores[:1] + scores[2:])):
        return f"the labels are floats, the model gives {scores[1]} scores for each; give classes as integers"
    return (
        f"labels of shape {list(labels)} do not fit an output of shape {list(scores)}; give one class per row"
    )
