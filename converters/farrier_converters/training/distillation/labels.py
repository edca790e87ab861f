"""The hard part of a student's loss: labels of classes, of steps of a sequence, of values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from farrier_contracts.errors import InputError

from ...distillation.outputs import Answer, class_axis

IGNORED = -100  # a label that does not count: of padding, of the step after the last
SMALLEST = 1e-7


def task_loss(found: Tensor, labels: Tensor, answer: Answer, *, smoothing: float = 0.0) -> Tensor:
    """Return the loss of an answer against labels: cross-entropy for classes, squared error for values.

    `found` is what `answer` looks at, [N, ...]; whole labels leave the axis of classes out and may be -100, which does
    not count. `smoothing` spreads that share of each label over all classes. Raises InputError where shapes do not fit.
    """
    if labels.is_floating_point() and answer.loss != "binary":
        if labels.numel() != found.numel():
            raise InputError(_misfit(found.shape, labels.shape))
        return F.mse_loss(found, labels.reshape(found.shape))
    if answer.loss == "binary" and labels.numel() == found.numel():
        odds = torch.logit(found, eps=SMALLEST) if answer.squashed else found
        return F.binary_cross_entropy_with_logits(odds, labels.reshape(found.shape).to(odds.dtype))
    axis = class_axis(found.shape, labels.shape)
    if axis is None:
        raise InputError(_misfit(found.shape, labels.shape))
    scores = found.clamp_min(SMALLEST).log() if answer.squashed else found
    scores = scores.movedim(axis, 1)
    classes = labels.to(torch.int64).reshape(scores.shape[:1] + scores.shape[2:])
    total = F.cross_entropy(scores, classes, ignore_index=IGNORED, label_smoothing=smoothing, reduction="sum")
    return total / (classes != IGNORED).sum().clamp_min(1)


def check_labels(labels: np.ndarray, shape: Sequence[int], answer: Answer) -> None:
    """Raise InputError for class labels out of range, naming one of them; `shape` is that of the output."""
    if labels.dtype.kind not in "iub" or answer.loss == "binary":
        return
    axis = class_axis(shape, labels.shape)
    if axis is None:
        raise InputError(_misfit(shape, labels.shape))
    wrong = labels[((labels < 0) & (labels != IGNORED)) | (labels >= shape[axis])]
    if wrong.size:
        raise InputError(
            f"label {wrong.flat[0]} is out of range: the model has classes 0 to {shape[axis] - 1}"
        )


def next_tokens(ids: Tensor) -> Tensor:
    """Return what each step [N, T] of a text should say: the token after it, none at the end."""
    return torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], 1)


def _misfit(shape: Sequence[int], labels: Sequence[int]) -> str:
    return (
        f"labels of shape {list(labels)} do not fit an output of shape {list(shape)}; give one class per row, one per "
        "step or one per pixel, or a loss of your own"
    )
