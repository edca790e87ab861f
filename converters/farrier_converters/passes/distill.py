"""Distillation: the model learns from the answers of another, usually of what it was before other passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import InputError, UsageError

from ..model import Model, load
from . import Context, Pass

if TYPE_CHECKING:
    from ..training.distillation.adapt import Adapted
    from ..training.distillation.teach import Distilled, Lesson
    from ..training.fit import FitSettings

ADAPT_EPOCHS = 2


@dataclass(frozen=True)
class DistillOptions:
    """What a student learns, and from whom.

    The loss is `hard` of the labels' and the rest of the distance to the teacher's answers at `temperature`; without
    labels it is that distance alone. `features` and `attention` weigh what is compared inside: at `pairs` of tensors
    (the student's and the teacher's name), or at points that are found. `losses` says how outputs are compared: "kl",
    "binary", "mse", "l1", "smooth-l1", "cosine" or "none" by output; what an output is shows otherwise.

    `teacher` (a model or a file) replaces the model as it came; `teachers` join it, with `shares` as weights. Each is
    first trained on the labels for `adapt` epochs (0: never), where held-out rows can tell whether that helps.

    `mask` is an input that is zero at padding, `next_token` an input of token numbers that label each other. `fit` (and
    `adapt_fit`, on top of it, for teachers) are fields of `training.fit.FitSettings`, `loss(outputs, labels)` replaces
    that of the labels. `cache_bytes` is for teachers' answers to rows that come back unchanged.
    """

    temperature: float = 4.0
    hard: float = 0.5
    features: float = 0.0
    attention: float = 0.0
    pairs: Sequence[Sequence[str]] = ()
    losses: Mapping[str, str] = field(default_factory=dict)
    teacher: Model | Path | str | None = None
    teachers: Sequence[Model | Path | str] = ()
    shares: Sequence[float] = ()
    adapt: int = ADAPT_EPOCHS
    adapt_fit: Mapping[str, Any] = field(default_factory=dict)
    mask: str | None = None
    next_token: str | None = None
    fit: Mapping[str, Any] = field(default_factory=dict)
    loss: Any = None
    cache_bytes: int = 1 << 29
    checkpoints: int = 0


def run(model: Model, options: DistillOptions, context: Context) -> Model:
    """Return the model after it has learned from its teacher on `context.training`.

    Raises UsageError without training data or teacher, InputError for what cannot be trained or compared,
    MissingToolError without PyTorch.
    """
    return distill(model, options, context).model


def distill(model: Model, options: DistillOptions, context: Context) -> Distilled:
    """Do what the pass does, and return how it went beside the model."""
    if context.training is None:
        raise UsageError("distillation needs training data; give a stream of batches, with labels or without")
    teacher = context.original if options.teacher is None else options.teacher
    if teacher is None:
        raise UsageError("distillation needs a teacher: give one in the options, or the model as it came")
    from ..training.distillation.teach import teach

    return teach(
        model,
        [_model(given) for given in (teacher, *options.teachers)],
        context.training,
        lesson(options),
        validation=context.validation,
        work=context.work,
        progress=context.progress,
    )


def adapted(teacher: Model, options: DistillOptions, context: Context) -> Adapted:
    """Return the teacher as the pass would adapt it: for a student that is to be made from it.

    Raises UsageError without training data.
    """
    if context.training is None:
        raise UsageError("adapting a teacher needs training data; give a stream of batches with labels")
    from ..training.data import held_out, stream
    from ..training.distillation.adapt import Task, adapt

    names = [spec.name for spec in teacher.inputs]
    data = stream(context.training, names)
    first = next(iter(data(0)), None)
    if first is None:
        raise InputError("the training data holds no batches")
    batches = None if context.validation is None else held_out(context.validation, names)
    given = Task(batches, names, first[1] is not None, loss=options.loss)
    return adapt(teacher, data, lesson(options).adapt, given, work=context.work, progress=context.progress)


def lesson(options: DistillOptions) -> Lesson:
    """Return the options as the training side takes them; raises UsageError."""
    from ..training.distillation import Reading, Weights
    from ..training.distillation.teach import Lesson

    if options.adapt < 0:
        raise UsageError(f"adapt is a number of epochs, 0 for none; it is {options.adapt}")
    settings = _settings(options.fit, "fit")
    adapt = None
    if options.adapt:
        given = {**options.fit, "epochs": options.adapt, **options.adapt_fit}
        adapt = _settings(given, "adapt_fit")
    return Lesson(
        weights=Weights(options.temperature, options.hard, options.features, options.attention),
        fit=settings,
        adapt=adapt if options.loss is None or adapt is None else replace(adapt, smoothing=0.0),
        pairs=options.pairs,
        losses=options.losses,
        shares=options.shares,
        reading=Reading(options.mask, options.next_token),
        loss=options.loss,
        cache_bytes=options.cache_bytes,
        checkpoints=options.checkpoints,
    )


def _settings(given: Mapping[str, Any], what: str) -> FitSettings:
    from ..training.fit import FitSettings

    return FitSettings.of(given, what)


def _model(given: Model | Path | str) -> Model:
    if isinstance(given, Model):
        return given
    path = Path(given)
    if not path.exists():
        raise InputError(f"there is no teacher at {path}")
    return load(path)


DISTILL = Pass("distill", DistillOptions, run)
