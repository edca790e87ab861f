"""A whole distillation: score the teacher, adapt it to the data, let the student learn, say what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ...distillation.points import Pair, matched, paired, related
from ...metrics import Metric
from ...model import Model
from ..data import Batch, Rows, held_out, stream
from ..fit import FitSettings, History, Progress, fit
from ..fit.judge import Judge, Verdict
from ..fit.trainer import Trainer
from ..losses import Loss, task
from ..module import OnnxModule
from ..objective import Plain
from .objective import Distillation, Reading, Weights
from .teachers import CACHE_BYTES, Teachers

NOTE = "note: "


@dataclass(frozen=True)
class Lesson:
    """How a student is taught.

    `fit` is its training, `adapt` that of each teacher before (None: teachers stay as they are), which needs labels and
    held-out rows to be judged by: a teacher that becomes no better stays as it was. `pairs` names tensors (student's,
    teacher's) to be compared; without them they are matched (see `distillation.points`). `losses` names losses by
    output, `shares` are the weights of several teachers. `cache_bytes` bounds the teachers' answers that are kept, for
    rows that come back unchanged. `checkpoints` > 1 computes inner results of the student twice to save memory.
    """

    weights: Weights = field(default_factory=Weights)
    fit: FitSettings = field(default_factory=FitSettings)
    adapt: FitSettings | None = None
    pairs: Sequence[Sequence[str]] = ()
    losses: Mapping[str, str] = field(default_factory=dict)
    shares: Sequence[float] = ()
    reading: Reading = field(default_factory=Reading)
    loss: Loss | None = None
    cache_bytes: int = CACHE_BYTES
    checkpoints: int = 0


@dataclass(frozen=True)
class Distilled:
    """The student and its (first) teacher after training, and how both did on held-out rows.

    `verdicts` holds what "teacher", "adapted", "before" (the student) and "after" reached, where there were held-out
    rows. `notes` say what a user should know, in sentences.
    """

    model: Model
    teacher: Model
    history: History
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def teach(
    student: Model,
    teachers: Sequence[Model],
    data: Any,
    lesson: Lesson = Lesson(),
    *,
    validation: Any = None,
    metric: Metric | None = None,
    work: Path | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> Distilled:
    """Return a student that has learned from its teachers on `data` (see `fit` for data, `validation` and `work`).

    Batches without labels teach by the teachers' answers alone. Raises UsageError and InputError in one sentence.
    """
    if not teachers:
        raise UsageError("distillation needs a teacher")
    return _Course(student, teachers, data, lesson, validation, metric, work, progress).run()


class _Course:
    def __init__(
        self,
        student: Model,
        teachers: Sequence[Model],
        data: Any,
        lesson: Lesson,
        validation: Any,
        metric: Metric | None,
        work: Path | None,
        progress: Progress,
    ) -> None:
        self.student, self.lesson, self.metric, self.work, self.progress = (
            student,
            lesson,
            metric,
            work,
            progress,
        )
        names = [spec.name for spec in student.inputs]
        self.data = stream(data, names)
        self.held_out = None if validation is None else held_out(validation, names)
        first = next(iter(self.data(0)), None)
        if first is None:
            raise InputError("the training data holds no batches")
        self.example, self.labels = first
        self.pupil = OnnxModule(student, example=self.example, checkpoints=lesson.checkpoints)
        self.modules = [OnnxModule(teacher) for teacher in teachers]
        self.notes: list[str] = []
        self.verdicts: dict[str, Verdict] = {}

    def run(self) -> Distilled:
        lesson = self.lesson
        teachers = Teachers(self.modules, lesson.shares, cache_bytes=lesson.cache_bytes)
        objective = self._objective(teachers)  # refuses what does not fit before anything is trained
        self._score("before", self.pupil)
        for module in self.modules:
            self._adapt(module, first=module is self.modules[0])
        self._compare()
        adapted = self.modules[0].write_back()
        teachers.cache = self._returns()
        history = fit(
            self.pupil,
            self.data,
            replace(lesson.fit, smoothing=0.0),
            objective=objective,
            validation=self.held_out,
            metric=self.metric,
            work=None if self.work is None else _folder(self.work, "student"),
            key=repr((lesson.weights, lesson.pairs, lesson.losses, lesson.shares, lesson.fit.smoothing)),
            progress=self.progress,
        )
        self._score("after", self.pupil)
        notes = [*self.notes, *([history.note] if history.note else [])]
        return Distilled(self.pupil.write_back(), adapted, history, self.verdicts, tuple(notes))

    def _objective(self, teachers: Teachers) -> Distillation:
        first = self.modules[0].model
        return Distillation(
            self.pupil,
            teachers,
            self.lesson.weights,
            example={name: np.asarray(value)[:2] for name, value in self.example.items()},
            labels=self.labels,
            losses=self.lesson.losses,
            pairs=self._pairs(first),
            born=bool(related(self.student, first)),
            reading=self.lesson.reading,
            loss=self.lesson.loss,
            smoothing=self.lesson.fit.smoothing,
        )

    def _pairs(self, teacher: Model) -> tuple[Pair, ...]:
        weights = self.lesson.weights
        if self.lesson.pairs:
            return paired(self.student, teacher, self.lesson.pairs)
        if not (weights.features or weights.attention):
            return ()
        try:
            return matched(
                self.student, teacher, feeds=self.example if _same_inputs(self.student, teacher) else None
            )
        except InputError:
            if weights.features:
                raise
            return ()  # maps of attention may do

    def _adapt(self, module: OnnxModule, *, first: bool) -> None:
        """Train a teacher on the labels, where that is asked for and can be judged."""
        if first:
            self._score("teacher", module)
        if self.lesson.adapt is None:
            return
        if self.labels is None or self.held_out is None:
            self.notes.append(
                "the teacher was not adapted to the data: that takes labels, and held-out rows to judge it by"
            )
            return
        name = module.model.name
        history = fit(
            module,
            _renamed(self.data, module, self.student),
            self.lesson.adapt,
            loss=self.lesson.loss,
            validation=_renamed(self.held_out, module, self.student),
            metric=self.metric,
            work=None if self.work is None else _folder(self.work, f"teacher-{self.modules.index(module)}"),
            progress=lambda stage, share: self.progress(_about(stage, f"adapting {name}"), share),
        )
        if history.best == -1:
            self.notes.append(f"training {name} on this data made it no better: it teaches as it came")
        if first:
            self._score("adapted", module)

    def _score(self, what: str, module: OnnxModule) -> None:
        if self.held_out is None or self.labels is None:
            return
        data = self.held_out if module is self.pupil else _renamed(self.held_out, module, self.student)
        self.progress(f"scoring the {'student' if module is self.pupil else 'teacher'}", 0.0)
        loss = self.lesson.loss or task(module)
        trainer = Trainer(module, replace(self.lesson.fit, smoothing=0.0), Plain(module, loss), ())
        self.verdicts[what] = Judge(trainer, data, self.metric)()

    def _compare(self) -> None:
        """Say so where the teacher has nothing that the student has not."""
        found = self.verdicts.get("adapted", self.verdicts.get("teacher"))
        before = self.verdicts.get("before")
        if found is not None and before is not None and not found.better(before):
            note = (
                f"the teacher ({found.words}) is not better than the student is already ({before.words}): "
                "there may be little to learn from it; adapt it to the data for longer, or take a better one"
            )
            self.notes.append(note)
            self.progress(NOTE + note, 0.0)

    def _returns(self) -> bool:
        """Say whether the same rows come back in each epoch, as far as that can be seen."""
        return isinstance(self.data, Rows) and self.data.augment is None and self.data.mix is None


def _renamed(data: Any, module: OnnxModule, student: Model) -> Callable[..., Iterable[Batch]]:
    """Return a stream, or a pass over held-out batches, with the teacher's names of the inputs."""
    specs = [spec.name for spec in module.model.inputs]
    own = [spec.name for spec in student.inputs]
    if set(specs) <= set(own) or len(specs) != len(own):
        return data
    names = dict(zip(own, specs, strict=True))

    def renamed(*epoch: int) -> Iterable[Batch]:
        for inputs, labels in data(*epoch):
            yield {names[name]: value for name, value in inputs.items()}, labels

    return renamed


def _same_inputs(student: Model, teacher: Model) -> bool:
    return [s.name for s in student.inputs] == [s.name for s in teacher.inputs]


def _about(stage: str, what: str) -> str:
    return stage if stage.startswith(NOTE) else f"{what}: {stage}"


def _folder(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder
