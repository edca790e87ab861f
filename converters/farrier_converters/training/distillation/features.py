"""What a student's inner tensors have of a teacher's: features through learned projections, attention, relations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...distillation.points import Pair
from .answers import masked_mean

SMALLEST = 1e-7


def positions(value: Tensor, axis: int) -> Tensor:
    """Return a tensor [N, ..., C, ...] as [N, C, ...]: channels first, positions after them."""
    if value.ndim < 2:
        return value.reshape(len(value), 1)
    return value.movedim(axis, 1) if value.ndim > 2 else value


def alike(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return two tensors [N, C, ...] with the same positions: of each pair of sizes the smaller, by mean pooling.

    Maps and sequences meet as sequences; where only one of them has positions, the other's mean is taken.
    """
    if left.ndim != right.ndim:
        left, right = (v.flatten(2) if v.ndim > 2 else v.unsqueeze(2) for v in (left, right))
    if left.shape[2:] == right.shape[2:]:
        return left, right
    sizes = [min(a, b) for a, b in zip(left.shape[2:], right.shape[2:], strict=True)]
    return _pooled(left, sizes), _pooled(right, sizes)


def _pooled(value: Tensor, sizes: list[int]) -> Tensor:
    if list(value.shape[2:]) == sizes:
        return value
    pool = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}.get(len(sizes))
    if pool is None:
        return F.adaptive_avg_pool1d(value.flatten(2), math.prod(sizes)).reshape(*value.shape[:2], *sizes)
    return pool(value, sizes)


class Projection(nn.Module):
    """A learned linear map from a student's channels to a teacher's, at each position: a 1x1 convolution.

    Source: Romero et al., "FitNets", arXiv 1412.6550. It starts orthogonal, so that it keeps lengths, drawn by `seed`.
    """

    def __init__(self, student: int, teacher: int, seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(teacher, student))
        self.bias = nn.Parameter(torch.zeros(teacher))
        nn.init.orthogonal_(self.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, value: Tensor) -> Tensor:
        """Return [N, C', ...] for [N, C, ...]."""
        return F.linear(value.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


def feature_distance(found: Tensor, wanted: Tensor, pair: Pair, projection: Projection | None) -> Tensor:
    """Return the squared error of a student's features over the mean square of the teacher's."""
    student, teacher = alike(positions(found, pair.student.axis), positions(wanted, pair.teacher.axis))
    student = student if projection is None else projection(student)
    return F.mse_loss(student, teacher) / teacher.square().mean().clamp_min(SMALLEST)


def spatial_attention_distance(found: Tensor, wanted: Tensor, pair: Pair) -> Tensor:
    """Return the distance of two maps of where the activations are: sums of squares over channels, normalized.

    Source: Zagoruyko & Komodakis, "Paying more attention to attention", arXiv 1612.03928. It asks for positions, not
    for equal widths.
    """
    maps = [
        positions(value, point.axis).square().mean(1, keepdim=True)
        for value, point in ((found, pair.student), (wanted, pair.teacher))
    ]
    student, teacher = (F.normalize(m.flatten(1), dim=1, eps=SMALLEST) for m in alike(*maps))
    return (student - teacher).square().sum(1).mean()


def relation_distance(found: Tensor, wanted: Tensor, pair: Pair, mask: Tensor | None) -> Tensor:
    """Return KL between how each step of a sequence relates to all others, in teacher and student.

    Relations are the softmax of scaled products between steps (Wang et al., "MiniLM", arXiv 2002.10957, of values);
    widths may differ. `mask` [N, T] leaves out padding.
    """
    logs = []
    for value, point in ((found, pair.student), (wanted, pair.teacher)):
        steps = positions(value, point.axis).flatten(2).transpose(1, 2)
        products = steps @ steps.transpose(1, 2) / math.sqrt(steps.shape[2])
        if mask is not None and mask.shape == products.shape[:2]:
            products = products.masked_fill(mask[:, None, :] == 0, -1e4)
        logs.append(F.log_softmax(products, -1))
    return _kl_rows(logs[0], logs[1], mask)


def map_distance(found: Tensor, wanted: Tensor, mask: Tensor | None) -> Tensor:
    """Return KL between two maps of attention [N, heads, T, S]; of their means over heads where these differ in number.

    Source: Wang et al., "MiniLM", arXiv 2002.10957. `mask` [N, T] leaves out steps that ask.
    """
    if found.shape[1] != wanted.shape[1]:
        found, wanted = found.mean(1, keepdim=True), wanted.mean(1, keepdim=True)
    student, teacher = (v.clamp_min(SMALLEST).log().transpose(1, 2) for v in (found, wanted))
    return _kl_rows(student, teacher, mask)


def _kl_rows(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    return masked_mean((teacher.exp() * (teacher - student)).sum(-1), mask)
