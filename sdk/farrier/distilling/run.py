"""Distill: read, make the student, teach it, judge it beside its teacher, write it with a report."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farrier_contracts.errors import UsageError
from farrier_converters import metrics, passes
from farrier_converters import model as models
from farrier_converters.metrics import Metric
from farrier_converters.model import Model
from farrier_converters.passes.distill import DistillOptions

from ..optimization.output import folder
from ..stages import NOTE
from .result import Result, Scored
from .rows import Shares, Stream, read
from .score import BATCH, evaluated, parameters, timed

if TYPE_CHECKING:
    from farrier_converters.distillation.students import Student
    from farrier_converters.training.distillation.teach import Distilled

Progress = Callable[[str, float], None]
MARKS = ("report.json", "student.onnx")
ROWS_TO_CHOOSE = 256  # that layers are weighed on


@dataclass(frozen=True)
class Choice:
    """Where the student comes from: a file, or the teacher with `layers` of its layers and `width` of its channels."""

    file: Path | None = None
    layers: int | str | None = None
    width: float | str | None = None
    way: str = "alternate"

    def __post_init__(self) -> None:
        """Raise UsageError unless it is one of both."""
        made = self.layers is not None or self.width is not None
        if made == (self.file is not None):
            raise UsageError(
                "give a student (--student S.onnx), or say what it keeps of its teacher (--layers half, --width 50%)"
            )


def distill(
    teacher: str | Path,
    *,
    train: str | Path,
    out: str | Path,
    student: str | Path | None = None,
    layers: int | str | None = None,
    width: float | str | None = None,
    way: str = "alternate",
    data: str | Path | None = None,
    metric: str | None = None,
    unlabelled: bool = False,
    alone: bool = False,
    batch: int = 64,
    seed: int = 0,
    work: str | Path | None = None,
    options: DistillOptions = DistillOptions(),
    progress: Progress = lambda _stage, _share: None,
) -> Result:
    """Teach a student what `teacher` (ONNX) knows, and write student.onnx, report.html and report.json to `out`.

    The student is a model of its own, or made from the teacher: `layers` ("half", "33%", a number) are kept as `way`
    says ("alternate", "first", "last", "importance"), and `width` ("50%") of the channels. `train` holds rows under the
    model's input names (.npz), with labels or without (`unlabelled` forgets them); a tenth of them chooses the best
    epoch. `data` holds the rows that judge, else a fifth of `train` does. `alone` trains the same student on the labels
    alone, too, and delivers what is better on the rows that choose. `options` say how it learns. In `work` a killed
    run goes on.
    Raises UsageError and InputError in one sentence, and then writes nothing.
    """
    choice = Choice(None if student is None else Path(student), layers, width, way)
    folder.check(Path(out), MARKS)
    if batch < 1:
        raise UsageError(f"a batch has at least one row; it is {batch}")
    first = models.load(Path(teacher))
    given = None if choice.file is None else models.load(choice.file)
    shares = read(Path(train), _path(data), (given or first).inputs, unlabelled=unlabelled, seed=seed)
    chosen = metrics.get(metric) if metric else metrics.choose(shares.evaluation.labels)
    if alone and shares.training.labels is None:
        raise UsageError("a student that learns alone needs labels; leave out --alone")
    workplace = _Workplace(shares, batch, _path(work), progress)
    options = replace(options, fit={"seed": seed, **options.fit})
    lesson = workplace.lesson(first, given, choice, options)
    rivals = {"teacher": lesson.teacher}
    if lesson.adapted is not lesson.teacher:
        rivals["adapted teacher"] = lesson.adapted
    rivals["student before"] = lesson.made.model
    if alone:
        rivals["student alone"] = workplace.alone(lesson.made.model, options)
    rivals["distilled"] = lesson.taught.model
    scored = _scored(rivals, shares, chosen, progress)
    delivered, notes = _decide(rivals, shares, chosen)
    result = Result(
        out=Path(out),
        metric=chosen,
        models=scored,
        delivered=delivered,
        rows={
            "training": len(shares.training),
            "validation": len(shares.validation),
            "evaluation": len(shares.evaluation),
        },
        history=lesson.taught.history.to_dict(),
        options=_plain(options, choice, batch),
        layers={"kept": list(lesson.made.kept), "dropped": list(lesson.made.dropped)},
        notes=tuple(dict.fromkeys((*shares.notes, *lesson.notes, *notes))),
    )
    _write(result, rivals[delivered])
    return result


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


@dataclass(frozen=True)
class _Lesson:
    """What came of the teaching."""

    teacher: Model
    adapted: Model
    made: Student
    taught: Distilled
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Workplace:
    """What every training of a run has in common."""

    shares: Shares
    batch: int
    work: Path | None
    progress: Progress

    def lesson(
        self, teacher: Model, student: Model | None, choice: Choice, options: DistillOptions
    ) -> _Lesson:
        """Teach a student, given or made; one that is made starts from the weights of the adapted teacher."""
        from farrier_converters.distillation.students import Student
        from farrier_converters.passes import distill

        if student is not None:
            taught = distill.distill(student, options, self._context("student", options, teacher))
            adapted = taught.teacher if "adapted" in taught.verdicts else teacher
            return _Lesson(teacher, adapted, Student(student), taught, taught.notes)
        clean = passes.get("clean")
        teacher = clean.run(teacher, clean.options(), passes.Context())
        self._made(teacher, choice)  # refuses what cannot be made before anything is trained
        found = distill.adapted(teacher, options, self._context("teacher", options))
        made = self._made(found.model, choice)
        context = self._context("student", options, found.model)
        taught = distill.distill(made.model, replace(options, adapt=0), context)
        notes = (*([found.note] if found.note else []), *taught.notes)
        return _Lesson(teacher, found.model, made, taught, notes)

    def alone(self, student: Model, options: DistillOptions) -> Model:
        """Train a student on the labels alone, with the same rows, order and settings."""
        from farrier_converters.training.fit import FitSettings, fit
        from farrier_converters.training.module import OnnxModule

        context = self._context("alone", options)
        module = OnnxModule(student, checkpoints=options.checkpoints)
        fit(
            module,
            context.training,
            FitSettings.of(options.fit),
            loss=options.loss,
            validation=context.validation,
            work=context.work,
            progress=lambda stage, share: self.progress(f"alone: {stage.removeprefix(NOTE)}", share),
        )
        return module.write_back()

    def _made(self, teacher: Model, choice: Choice) -> Student:
        from farrier_converters.distillation.students import made

        rows = self.shares.training
        some = rows.take(rows.rows[:ROWS_TO_CHOOSE])
        return made(
            teacher,
            layers=choice.layers,
            width=choice.width,
            way=choice.way,
            batches=(feeds for feeds, _ in some.batches(rows.fixed_batch or BATCH)),
            progress=self.progress,
        )

    def _context(self, name: str, options: DistillOptions, original: Model | None = None) -> passes.Context:
        work = None if self.work is None else self.work / name
        if work is not None:
            work.mkdir(parents=True, exist_ok=True)
        seed = int(options.fit["seed"])
        return passes.Context(
            training=Stream(self.shares.training, self.batch, seed),
            validation=Stream(self.shares.validation, self.batch, seed).in_order,
            original=original,
            work=work,
            progress=self.progress,
        )


def _scored(
    rivals: Mapping[str, Model], shares: Shares, metric: Metric, progress: Progress
) -> dict[str, Scored]:
    """Return what each model reaches and costs; without labels, how far it agrees with the teacher."""
    progress("measuring", 0.0)
    times = timed(rivals, shares.evaluation)
    found = {}
    reference = rivals.get("adapted teacher", rivals["teacher"])
    for number, (name, model) in enumerate(rivals.items()):
        progress("judging", number / len(rivals))
        value = evaluated(model, shares.evaluation, metric, reference=reference)
        size = model.proto.ByteSize()
        found[name] = Scored(model.name, value, size, parameters(model), times[name])
    return found


def _decide(rivals: Mapping[str, Model], shares: Shares, metric: Metric) -> tuple[str, Sequence[str]]:
    """Return which student is delivered, and why it is not the distilled one where it is not.

    The held-out training rows decide, never those that judge: a score that chose its model says too much of it. Without
    labels there, the student that agrees most with the teacher is best.
    """
    if metric.needs_labels and shares.validation.labels is None:
        metric = metrics.get("agreement")
    reference = rivals.get("adapted teacher", rivals["teacher"])
    students = [name for name in ("distilled", "student alone", "student before") if name in rivals]
    values = {
        name: evaluated(rivals[name], shares.validation, metric, reference=reference) for name in students
    }
    sign = 1 if metric.higher_is_better else -1
    best = max(students, key=lambda name: (sign * values[name], -students.index(name)))
    if best == "distilled":
        return best, ()
    what = {
        "student alone": "the student that learned from labels alone",
        "student before": "the student as it was",
    }
    return best, (f"{what[best]} is delivered: on the held-out training rows the distilled one is no better",)


def _plain(options: DistillOptions, choice: Choice, batch: int) -> dict[str, Any]:
    """Return what a report can hold of the options."""
    given = {**vars(options), "teacher": None, "loss": getattr(options.loss, "__name__", None)}
    given["teachers"] = [getattr(t, "name", str(t)) for t in options.teachers]
    made = {"layers": choice.layers, "width": choice.width, "way": choice.way}
    return json.loads(json.dumps({**given, **made, "batch": batch}, default=list))


def _write(result: Result, model: Model) -> None:
    from . import page

    document = result.to_document()
    with folder.staged(result.out, MARKS) as stage:
        models.save(model, stage / "student.onnx")
        (stage / "report.json").write_text(
            json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (stage / "report.html").write_text(page.html(result), encoding="utf-8")
