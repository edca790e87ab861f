"""Structured pruning: channels, heads, units and whole blocks go, where that makes the target faster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from ..model import Model
from ..pruning.group import Groups
from ..pruning.importance import CRITERIA, GRADIENTS
from ..pruning.options import PruneOptions
from ..pruning.procedure import Pruned, Resources, procedure
from . import Context, Pass, get
from .clean import CLEAN


def prune(model: Model, options: PruneOptions, context: Context) -> Pruned:
    """Do what the pass does, and return how it went beside the model."""
    model = CLEAN.run(model, CLEAN.options(), replace(context, log=None))

    def tune(current: Model) -> Model:
        if context.original is None:
            step, own = get("finetune"), {}
        else:  # whatever it was is the better teacher: labels alone bring back less
            step, own = get("distill"), {"adapt": 0}
        return step.run(current, step.options(fit=dict(options.fit), **own), context)

    def gradients(groups: Groups, name: str) -> Mapping[str, np.ndarray]:
        from ..training.importance import gradients as gather

        return gather(
            groups,
            name,
            _labelled(context),
            rows=options.rows,
            seed=options.seed,
            device=options.device,
            progress=context.progress,
        )

    return procedure(
        model,
        options,
        Resources(
            staircase=context.staircase,
            rows=context.calibration,
            gradients=gradients if _learns(options, context) else None,
            tune=tune if options.fit and context.training is not None else None,
            progress=context.progress,
        ),
    )


def _learns(options: PruneOptions, context: Context) -> bool:
    """Say whether gradients are there: with training data, or where they are asked for and rows are."""
    if context.training is not None:
        return True
    asked = options.importance in CRITERIA and CRITERIA[options.importance].needs == GRADIENTS
    return asked and context.calibration is not None


def _labelled(context: Context) -> Iterator[tuple[Mapping[str, np.ndarray], np.ndarray | None]]:
    if context.training is not None:
        yield from context.training(0)
    elif context.calibration is not None:
        for feeds in context.calibration():
            yield feeds, None


def run(model: Model, options: PruneOptions, context: Context) -> Model:
    """Return the pruned model; the same one where nothing that may go makes it faster.

    Raises UsageError for options that mean nothing, InputError for a goal that would take a whole layer or a model
    in which nothing can go, MissingToolError where gradients are asked for and PyTorch is not there.
    """
    return prune(model, options, context).model


PRUNE = Pass("prune", PruneOptions, run)
