"""Structured pruning: channels, heads, units and whole blocks go, where that makes the target faster."""

from __future__ import annotations

from dataclasses import replace

from ..model import Model
from ..pruning.options import PruneOptions
from ..pruning.procedure import Pruned, Resources, procedure
from . import Context, Pass, get
from .clean import CLEAN


def prune(model: Model, options: PruneOptions, context: Context) -> Pruned:
    """Do what the pass does, and return how it went beside the model."""
    model = CLEAN.run(model, CLEAN.options(), replace(context, log=None))

    def tune(current: Model) -> Model:
        step = get("finetune")
        return step.run(current, step.options(fit=dict(options.fit)), context)

    def gradients(groups, name):  # noqa: ANN001, ANN202
        raise NotImplementedError

    return procedure(
        model,
        options,
        Resources(
            staircase=context.staircase,
            rows=context.calibration,
            gradients=None,
            tune=tune if options.fit and context.training is not None else None,
            progress=context.progress,
        ),
    )


def run(model: Model, options: PruneOptions, context: Context) -> Model:
    """Return the pruned model; the same one where nothing that may go makes it faster.

    Raises UsageError for options that mean nothing, InputError for a goal that would take a whole layer or a model
    in which nothing can go, MissingToolError where gradients are asked for and PyTorch is not there.
    """
    return prune(model, options, context).model


PRUNE = Pass("prune", PruneOptions, run)
