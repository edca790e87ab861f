"""A whole distillation: score the teacher, adapt it to the data, let the student learn, say what came of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ...distillation.points import Pair, matched, paired, related
from ...metrics import Metric
from ...model import Model
from ..data import Rows, held_out, stream
from ..fit import FitSettings, History, Progress, fit
from ..fit.judge import Verdict
from ..losses import Loss
from ..module import OnnxModule
from .adapt import NOTE, Task, adapt, scored
from .objective import Distillation, Reading, Weights
from .teachers import CACHE_BYTES, Teachers


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
        names = [spec.name for spec in student.inputs]
        self.student, self.teachers, self.lesson = student, list(teachers), lesson
        self.work, self.progress = work, progress
        self.data = stream(data, names)
        first = next(iter(self.data(0)), None)
        if first is None:
            raise InputError("the training data holds no batches")
        self.example, self.labels = first
        batches = None if validation is None else held_out(validation, names)
        self.task = Task(batches, names, self.labels is not None, metric, lesson.loss)
        self.pupil = OnnxModule(student, example=self.example, checkpoints=lesson.checkpoints)
        self.notes: list[str] = []
        self.verdicts: dict[str, Verdict] = {}

    def run(self) -> Distilled:
        lesson = self.lesson
        self._objective(self.teachers)  # refuses what does not fit before anything is trained
        self.progress("scoring the student", 0.0)
        self._judged("before", scored(self.pupil, lesson.fit, self.task))
        teachers = [self._adapted(teacher, number) for number, teacher in enumerate(self.teachers)]
        self._compare()
        objective = self._objective(teachers)
        objective.teachers.cache = self._returns()
        history = fit(
            self.pupil,
            self.data,
            replace(lesson.fit, smoothing=0.0),
            objective=objective,
            validation=self.task.held_out,
            metric=self.task.metric,
            work=self._folder("student"),
            key="" if self.work is None else _key(lesson, teachers),
            progress=self.progress,
        )
        self._judged("after", scored(self.pupil, lesson.fit, self.task))
        self.notes += [history.note] if history.note else []
        return Distilled(self.pupil.write_back(), teachers[0], history, self.verdicts, tuple(self.notes))

    def _objective(self, teachers: Sequence[Model]) -> Distillation:
        lesson = self.lesson
        return Distillation(
            self.pupil,
            Teachers([OnnxModule(t) for t in teachers], lesson.shares, cache_bytes=lesson.cache_bytes),
            lesson.weights,
            example={name: np.asarray(value) for name, value in self.example.items()},
            labels=self.labels,
            losses=lesson.losses,
            pairs=self._pairs(teachers[0]),
            born=bool(related(self.student, teachers[0])),
            reading=lesson.reading,
            loss=lesson.loss,
            smoothing=lesson.fit.smoothing,
        )

    def _pairs(self, teacher: Model) -> tuple[Pair, ...]:
        weights = self.lesson.weights
        if self.lesson.pairs:
            return paired(self.student, teacher, self.lesson.pairs)
        if not (weights.features or weights.attention):
            return ()
        alike = [spec.name for spec in teacher.inputs] == list(self.task.inputs)
        try:
            return matched(self.student, teacher, feeds=self.example if alike else None)
        except InputError:
            if weights.features:
                raise
            return ()  # maps of attention may do

    def _adapted(self, teacher: Model, number: int) -> Model:
        self.progress("scoring the teacher", 0.0)
        found = adapt(
            teacher,
            self.data,
            self.lesson.adapt,
            self.task,
            work=self._folder(f"teacher-{number}"),
            progress=self.progress,
        )
        self.notes += [found.note] if found.note else []
        if number == 0:
            self._judged("teacher", found.before)
            self._judged("adapted", found.after)
        return found.model

    def _judged(self, what: str, verdict: Verdict | None) -> None:
        if verdict is not None:
            self.verdicts[what] = verdict

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
        if isinstance(self.data, Rows):
            return self.data.augment is None and self.data.mix is None
        return bool(getattr(self.data, "repeats", False))

    def _folder(self, name: str) -> Path | None:
        if self.work is None:
            return None
        folder = self.work / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _key(lesson: Lesson, teachers: Sequence[Model]) -> str:
    """Return what tells this training from others in the same folder: how it learns, and from whom."""
    total = hashlib.sha256()
    for teacher in teachers:
        total.update(teacher.proto.SerializeToString(deterministic=True))
    what = (lesson.weights, lesson.pairs, lesson.losses, lesson.shares, lesson.reading, lesson.fit.smoothing)
    return f"{what!r} {total.hexdigest()}"
