"""A teacher is scored on the task, and adapted to its data where that makes it better.

A teacher that has never seen data of this kind can make a student worse than labels alone would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ...metrics import Metric
from ...model import Model
from ..data import Batch
from ..fit import FitSettings, Progress, fit
from ..fit.judge import Judge, Verdict
from ..fit.trainer import Trainer
from ..losses import Loss, task
from ..module import OnnxModule
from ..objective import Plain

NOTE = "note: "


@dataclass(frozen=True)
class Task:
    """What teachers and students are judged by: held-out batches (None: nothing can be judged) and a metric.

    `inputs` are the names under which the data holds inputs; models that call them otherwise get them in this order.
    `labelled` says whether the training data has labels. `loss` replaces the one that labels suggest.
    """

    held_out: Callable[[], Iterable[Batch]] | None
    inputs: Sequence[str]
    labelled: bool
    metric: Metric | None = None
    loss: Loss | None = None

    @cached_property
    def judged(self) -> bool:
        """Whether models can be scored: there are held-out rows, and these have labels."""
        first = None if self.held_out is None else next(iter(self.held_out()), None)
        return first is not None and first[1] is not None


@dataclass(frozen=True)
class Adapted:
    """A teacher after its adaptation; what it reached before and after, and a sentence where it stayed as it was."""

    model: Model
    before: Verdict | None = None
    after: Verdict | None = None
    note: str | None = None


def adapt(
    teacher: Model,
    data: Any,
    settings: FitSettings | None,
    given: Task,
    *,
    work: Path | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> Adapted:
    """Score a teacher and train it on the labels (`settings` None: only score it); the better of both is returned.

    `data` is a stream of batches (see `training.data`). Raises InputError for a teacher that cannot be trained.
    """
    module = OnnxModule(teacher)
    before = scored(module, settings or FitSettings(), given)
    if settings is None:
        return Adapted(teacher, before)
    if not (given.judged and given.labelled):
        note = "the teacher was not adapted to the data: that takes labels, and held-out rows to judge it by"
        return Adapted(teacher, before, note=note)
    history = fit(
        module,
        renamed(data, teacher, given.inputs),
        settings,
        loss=given.loss,
        validation=renamed(given.held_out, teacher, given.inputs),
        metric=given.metric,
        work=work,
        progress=lambda stage, share: progress(_about(stage, f"adapting {teacher.name}"), share),
    )
    if history.best == -1:
        note = f"training {teacher.name} on this data made it no better: it teaches as it came"
        return Adapted(teacher, before, before, note)
    return Adapted(module.write_back(), before, scored(module, settings, given))


def scored(module: OnnxModule, settings: FitSettings, given: Task) -> Verdict | None:
    """Return what a module reaches on the held-out batches; None where it cannot be judged."""
    if not given.judged:
        return None
    loss = given.loss or task(module)
    trainer = Trainer(module, replace(settings, smoothing=0.0), Plain(module, loss), ())
    return Judge(trainer, renamed(given.held_out, module.model, given.inputs), given.metric)()


def renamed(data: Any, model: Model, inputs: Sequence[str]) -> Any:
    """Return a stream, or a pass over held-out batches, with the model's own names of the inputs."""
    specs = [spec.name for spec in model.inputs]
    if set(specs) <= set(inputs) or len(specs) != len(inputs):
        return data
    names = dict(zip(inputs, specs, strict=True))

    def batches(*epoch: int) -> Iterable[Batch]:
        for values, labels in data(*epoch):
            yield {names[name]: value for name, value in values.items()}, labels

    return batches


def _about(stage: str, what: str) -> str:
    return stage if stage.startswith(NOTE) else f"{what}: {stage}"
