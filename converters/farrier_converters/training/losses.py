"""What training minimizes: the labels' loss, or the distance to the float model's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .module import OnnxModule

Loss = Callable[[Any, Any], Tensor]  # (outputs, labels or the teacher's outputs) -> a scalar
SMALLEST = 1e-7  # of a probability whose logarithm is taken


def ends_in_softmax(module: OnnxModule) -> bool:
    """Say whether the first output is probabilities already."""
    name = module.model.outputs[0].name
    return any(name in step.outputs and step.name == "Softmax" for step in module.steps)


def task(module: OnnxModule) -> Loss:
    """Return cross-entropy for labels that are classes, mean squared error for those that are values.

    It looks at the first output; classes are on axis 1.
    """
    normal = ends_in_softmax(module)

    def loss(outputs: Any, labels: Tensor) -> Tensor:
        scores = first(outputs)
        if labels.is_floating_point():
            return F.mse_loss(scores, labels.reshape(scores.shape))
        classes = labels.to(torch.int64).reshape(scores.shape[:1] + scores.shape[2:])
        return (
            F.nll_loss(scores.clamp_min(SMALLEST).log(), classes)
            if normal
            else F.cross_entropy(scores, classes)
        )

    return loss


def distill(module: OnnxModule) -> Loss:
    """Return the distance to a teacher: KL divergence for scores [N, classes], else relative squared error.

    Source: Hinton et al., "Distilling the knowledge in a neural network", arXiv 1503.02531, at temperature 1.
    """
    normal = ends_in_softmax(module)

    def loss(outputs: Any, teacher: Any) -> Tensor:
        total = torch.zeros(())
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
