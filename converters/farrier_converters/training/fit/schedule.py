"""How the learning rate moves over a training: a factor 0..1 of its highest value, by the share of steps done."""

from __future__ import annotations

import math

from .settings import FitSettings

ONE_CYCLE_RISE = 0.3  # of all steps (Smith & Topin, arXiv 1708.07120)
ONE_CYCLE_START = 1 / 25  # of the highest rate
ONE_CYCLE_END = 1e-4
FIRST = 1e-3  # of all steps: what the first step counts as done, so that its rate is not zero


def factor(settings: FitSettings, share: float) -> float:
    """Return what the learning rate is multiplied by when `share` (0..1) of all steps are done.

    - "cosine": half a cosine from 1 to 0 (Loshchilov & Hutter, arXiv 1608.03983);
    - "constant": 1;
    - "one-cycle": up over 0.3 of the steps and down to almost 0, along half cosines (Smith & Topin, arXiv 1708.07120);
    - "step": times `gamma` after every `step_epochs` epochs;
    - "multistep": times `gamma` at each of `milestones`, which are shares of all steps.

    All but "one-cycle", which has its own rise, start with `warmup`: a line from nearly 0 over that share.
    """
    share = min(max(share, 0.0), 1.0)
    if settings.schedule == "one-cycle":
        return _one_cycle(share)
    found = 1.0
    if settings.schedule == "cosine":
        found = (1 + math.cos(math.pi * share)) / 2
    elif settings.schedule == "step":
        found = settings.gamma ** int(share * settings.epochs / settings.step_epochs + 1e-9)
    elif settings.schedule == "multistep":
        found = settings.gamma ** sum(share >= at for at in settings.milestones)
    if share < settings.warmup:
        found *= min((share + FIRST) / settings.warmup, 1.0)
    return found


def _one_cycle(share: float) -> float:
    if share < ONE_CYCLE_RISE:
        return _between(ONE_CYCLE_START, 1.0, share / ONE_CYCLE_RISE)
    return _between(1.0, ONE_CYCLE_END, (share - ONE_CYCLE_RISE) / (1 - ONE_CYCLE_RISE))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
