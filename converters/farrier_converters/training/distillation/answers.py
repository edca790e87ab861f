"""How far a student's answers are from a teacher's, output by output."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ...distillation.outputs import Answer

SMALLEST = 1e-7  # of a probability whose logarithm is taken, and of a spread that is divided by


def distance(
    found: Tensor, wanted: Tensor, answer: Answer, other: Answer, *, temperature: float, mask: Tensor | None
) -> Tensor:
    """Return the mean distance of a student's answer `found` from a teacher's, both of one shape [N, ...].

    `answer` says what the student's numbers are, `other` what the teacher's are; the student's `loss` counts.

    - "kl": T^2 KL(softmax(wanted / T) || softmax(found / T)) (Hinton et al., arXiv 1503.02531);
    - "binary": the same for each number as a yes or no;
    - "mse", "l1", "smooth-l1": of the differences, in units of the teacher's spread over the batch, so that outputs of
      any scale weigh alike;
    - "cosine": 1 - the cosine along the last axis.

    `mask` [N, T] (1: counts) leaves steps of sequences out, where the answer has such an axis.
    """
    if answer.loss == "kl":
        each = _divergence(
            _logits(found, answer), _logits(wanted, other), axis=answer.axis, temperature=temperature
        )
    elif answer.loss == "binary":
        each = _binary(_odds(found, answer), _odds(wanted, other), temperature)
    elif answer.loss == "cosine":
        each = 1 - F.cosine_similarity(found, wanted, dim=-1, eps=SMALLEST)
    else:
        each = _values(found, wanted, answer.loss)
    return masked_mean(each, mask)


def masked_mean(each: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean over all [N, T, ...] whose mask [N, T] is not zero; over all where it does not fit."""
    if mask is None or each.ndim < 2 or each.shape[:2] != mask.shape:
        return each.mean()
    weights = mask.to(each.dtype).reshape(*mask.shape, *(1,) * (each.ndim - 2)).expand_as(each)
    return (each * weights).sum() / weights.sum().clamp_min(1)


def _divergence(found: Tensor, wanted: Tensor, *, axis: int, temperature: float) -> Tensor:
    student = F.log_softmax(found / temperature, axis)
    teacher = F.log_softmax(wanted / temperature, axis)
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(axis)


def _binary(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    student, teacher = found / temperature, wanted / temperature
    yes = torch.sigmoid(teacher)
    return temperature**2 * (
        yes * (F.logsigmoid(teacher) - F.logsigmoid(student))
        + (1 - yes) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    )


def _values(found: Tensor, wanted: Tensor, loss: str) -> Tensor:
    spread = wanted.std(correction=0).clamp_min(SMALLEST)
    difference = (found - wanted) / spread
    if loss == "l1":
        return difference.abs()
    if loss == "smooth-l1":
        return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none")
    return difference.square()


def _logits(value: Tensor, answer: Answer) -> Tensor:
    return value.clamp_min(SMALLEST).log() if answer.squashed else value


def _odds(value: Tensor, answer: Answer) -> Tensor:
    return torch.logit(value, eps=SMALLEST) if answer.squashed else value
