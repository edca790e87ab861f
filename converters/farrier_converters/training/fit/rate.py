"""A range test for the learning rate: what the loss does while the rate rises by a constant factor from step to step.

Source: Smith, "Cyclical learning rates for training neural networks", arXiv 1506.01186, section 3.3. A few batches are
gone through again and again, so that the loss falls, or stays, until the rate is too high, whatever the batches are.
"""

from __future__ import annotations

import math
from itertools import islice

import torch

from farrier_contracts.errors import InputError

from ..data import Stream
from .trainer import Trainer

BATCHES = 4
STEPS = 100
LOWEST, HIGHEST = 1e-6, 1.0
BACK = 20.0  # from the rate at which the loss rises to the one that is taken
SMOOTHING = 0.75  # of the loss from step to step
RISE = 0.25  # of the loss at the start, above the least one: then the rate is too high


def probe(trainer: Trainer, data: Stream) -> float:
    """Return a learning rate for these weights, this optimizer and this data; the weights stay as they are.

    The trainer's optimizer has moved afterwards: take another one to train. Raises InputError for data without
    batches, and a loss that is no number before anything has moved.
    """
    batches = list(islice(iter(data(0)), BATCHES))
    if not batches:
        raise InputError("the training data holds no batches")
    kept = {name: value.detach().clone() for name, value in trainer.module.state_dict().items()}
    extra = [p.detach().clone() for p in trainer.extra]
    losses: list[float] = []
    smooth, least, rate = 0.0, math.inf, HIGHEST
    for number in range(STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (number / (STEPS - 1))
        losses.append(trainer.trial(batches[number % len(batches)], rate / trainer.settings.learning_rate))
        if not math.isfinite(losses[-1]):
            break
        smooth = losses[0] if number == 0 else SMOOTHING * smooth + (1 - SMOOTHING) * losses[-1]
        start = sum(losses[: len(batches)]) / min(len(losses), len(batches))
        if number >= len(batches):
            least = min(least, smooth)
            if smooth > least + RISE * abs(start):
                break
    if len(losses) <= len(batches) and not math.isfinite(losses[-1]):
        raise InputError("the loss is not a number before anything was trained")
    trainer.module.load_state_dict(kept)
    with torch.no_grad():
        for parameter, value in zip(trainer.extra, extra, strict=True):
            parameter.copy_(value)
    return rate / BACK
