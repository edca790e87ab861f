"""What training minimizes: the labels' loss, or the distance to the float model's answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import labels
from .module import OnnxModule

Loss = Callable[[Any, Any], Tensor]  # (outputs, labels or the teacher's outputs) -> a scalar
SMALLEST = 1e-7  # of a probability whose logarithm is taken


def ends_in_softmax(module: OnnxModule) -> bool:
    """Say whether the first output is probabilities already."""
    return _last(module) == "Softmax"


def _last(module: OnnxModule) -> str:
    """Return the operator that makes the first output."""
    name = module.model.outputs[0].name
    return next((step.name for step in module.steps if name in step.outputs), "")


class Task:
    """The loss that labels suggest for the first output.

    Whole numbers are classes (cross-entropy; on axis 1, or on the last one where only that fits) or, one for each
    score, yes and no (binary cross-entropy); floats are values (mean squared error) or, where `check` saw rows that
    sum to 1, shares of classes. An output that is a softmax or sigmoid already is taken as probabilities.
    `smoothing` spreads this share of a class label over all classes (Szegedy et al., arXiv 1512.00567).
    """

    def __init__(self, module: OnnxModule, smoothing: float = 0.0) -> None:
        self.end = _last(module)
        self.smoothing = smoothing
        self.shares = False

    def check(self, given: np.ndarray, scores: Sequence[int]) -> None:
        """Raise InputError for labels that do not fit scores of this shape, or are out of range."""
        self.shares = labels.check(given, scores) == labels.SHARES

    def __call__(self, outputs: Any, wanted: Tensor) -> Tensor:
        """Return the loss of a batch; see `Loss`."""
        scores = first(outputs)
        if self.shares:
            return self._classes(scores, wanted.to(scores.dtype))
        whole = not wanted.is_floating_point()
        kind = labels.kind(whole, wanted.shape, scores.shape)
        if kind == labels.VALUES:
            return F.mse_loss(scores, wanted.reshape(scores.shape).to(scores.dtype))
        if kind == labels.BINARY:
            return self._binary(scores, wanted.reshape(scores.shape).to(scores.dtype))
        if kind == labels.TOKENS:
            scores = scores.movedim(-1, 1)
        return self._classes(scores, wanted.to(torch.int64).reshape(scores.shape[:1] + scores.shape[2:]))

    def _classes(self, scores: Tensor, wanted: Tensor) -> Tensor:
        # The logarithm of probabilities is as good as scores: a softmax changes it no more.
        scores = scores.clamp_min(SMALLEST).log() if self.end == "Softmax" else scores
        return F.cross_entropy(scores, wanted, ignore_index=labels.IGNORED, label_smoothing=self.smoothing)

    def _binary(self, scores: Tensor, wanted: Tensor) -> Tensor:
        wanted = wanted * (1 - self.smoothing) + self.smoothing / 2
        if self.end == "Sigmoid":
            return F.binary_cross_entropy(scores.clamp(SMALLEST, 1 - SMALLEST), wanted)
        return F.binary_cross_entropy_with_logits(scores, wanted)


def task(module: OnnxModule, smoothing: float = 0.0) -> Task:
    """Return the loss that labels suggest (see `Task`)."""
    return Task(module, smoothing)


def distill(module: OnnxModule) -> Loss:
    """Return the distance to a teacher: KL divergence for scores [N, classes], else relative squared error.

    Source: Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531, at temperature 1.
    """
    normal = ends_in_softmax(module)

    def loss(outputs: Any, teacher: Any) -> Tensor:
        total = first(outputs).new_zeros((), dtype=torch.float32)
        for found, wanted in zip(_all(outputs), _all(teacher), strict=True):
            if not found.is_floating_point():
                continue
            if found.ndim == 2 and found.shape[1] > 1:
                pair = (
                    (found.clamp_min(SMALLEST).log(), wanted)
                    if normal
                    else (F.log_softmax(found, 1), F.softmax(wanted, 1))
                )
                total = total + F.kl_div(*pair, reduction="batchmean")
            else:
                total = total + F.mse_loss(found, wanted) / wanted.square().mean().clamp_min(SMALLEST)
        return total

    return loss


def first(outputs: Any) -> Tensor:
    """Return the first output."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _all(outputs: Any) -> tuple[Tensor, ...]:
    return outputs if isinstance(outputs, tuple) else (outputs,)
