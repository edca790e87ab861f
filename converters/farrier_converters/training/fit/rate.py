"""A range test for the learning rate: what the loss does while the rate rises by a constant factor from step to step.

Source: Smith, "Cyclical learning rates for training neural networks", arXiv 1506.01186, section 3.3. Here it guards a
rate that was given: it says how much of it is safe. A few batches are gone through again and again, so that the loss
falls, or stays, until the rate is too high, whatever the batches are.
"""

from __future__ import annotations

import math
from itertools import islice

import torch

from farrier_contracts.errors import InputError

from ..data import Stream
from ..module import OnnxModule
from .trainer import Trainer

BATCHES = 4
STEPS = 40
LOWEST, HIGHEST = 0.025, 25.0  # times the rate that was given
BACK = 25.0  # from the rate at which the loss rises to the one that is safe
SMOOTHING = 0.75  # of the loss from step to step
RISE = 0.25  # of the loss at the start, above the least one: then the rate is too high
NORMS = ("Normalization", "LRN")  # in an operator's name


def called_for(module: OnnxModule) -> bool:
    """Say whether the module convolves without any normalization: such networks stand ten times smaller rates.

    Mostly they came with their batch norms folded into the convolutions.
    """
    names = {step.name for step in module.steps}
    return "Conv" in names and not any(part in name for name in names for part in NORMS)


def safe_share(trainer: Trainer, data: Stream) -> float:
    """Return how much (0..1) of the rate in the trainer's settings these weights stand; they stay as they are.

    The trainer's optimizer has moved afterwards: take another one to train. Raises InputError for data without
    batches, and a loss that is no number before anything has moved.
    """
    batches = list(islice(iter(data(0)), BATCHES))
    if not batches:
        raise InputError("the training data holds no batches")
    kept = {name: value.detach().clone() for name, value in trainer.module.state_dict().items()}
    extra = [p.detach().clone() for p in trainer.extra]
    losses: list[float] = []
    smooth, least, share = 0.0, math.inf, HIGHEST
    for number in range(STEPS):
        share = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        losses.append(trainer.trial(batches[number % len(batches)], share))
        if not math.isfinite(losses[-1]):
            break
        smooth = losses[0] if number == 0 else SMOOTHING * smooth + (1 - SMOOTHING) * losses[-1]
        if number >= len(batches):
            start = sum(losses[: len(batches)]) / len(batches)
            least = min(least, smooth)
            if smooth > least + RISE * abs(start):
                break
    if len(losses) == 1 and not math.isfinite(losses[0]):
        raise InputError("the loss is not a number before anything was trained")
    trainer.module.load_state_dict(kept)
    with torch.no_grad():
        for parameter, value in zip(trainer.extra, extra, strict=True):
            parameter.copy_(value)
    return min(share / BACK, 1.0)
