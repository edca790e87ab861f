"""What is to be optimized: every argument read, checked and digested before anything is built."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts import targets
from farrier_contracts.errors import InputError, MissingToolError, UsageError
from farrier_converters import data, importers, metrics, passes
from farrier_converters import model as models
from farrier_converters.measure import engines
from farrier_converters.quantize import datafree
from farrier_converters.search import TRAINED, Budget, Candidate, plan, suited

from . import recipe
from .build import digest_of, file_digest, precision_of
from .smaller.rows import Epochs, HeldOut, hold_out
from .smaller.settings import ALWAYS, SmallerSettings
from .smaller.stairs import Stairs
from .smaller.watch import Watch
from .trial import Progress, TrialSettings

CALIBRATION_BATCH = 8  # rows per run where the model leaves that free
TWIN_ROWS = 32  # of made-up inputs that the twin of a calibration without data is fitted to
TWIN_ELEMENTS = 1 << 20  # of inputs in one such run
NO_ROWS = "training needs rows to train on; give them with --train"
NO_DATA = "random"  # stands for a digest where there was no file
# What the model is measured in as it came; targets without ONNX Runtime cannot get it delivered.
BASELINE = targets.Toolchain("onnx", "onnx", "onnxruntime", ("fp32",))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # platform.machine() -> the targets' word


@dataclass(frozen=True)
class Settings:
    """Every limit of an optimization."""

    data: data.DataSettings = field(default_factory=data.DataSettings)
    trial: TrialSettings = field(default_factory=TrialSettings)
    smaller: SmallerSettings = field(default_factory=SmallerSettings)
    work: Path | None = None  # folder where a killed run's calibration is found again


@dataclass(frozen=True)
class Job:
    """A checked request. `digests` are of the inputs; `warnings` are for the report."""

    model: models.Model
    target: targets.Target
    rows: data.Split
    metric: metrics.Metric
    metric_text: str  # as it was asked for, or the name of the one that was chosen
    budget: Budget
    original: Candidate
    candidates: tuple[Candidate, ...]
    digests: dict[str, str]
    warnings: tuple[str, ...]
    settings: Settings
    twin: models.Model | None = None  # observed in place of the model where calibration inputs are made up
    training: data.Dataset | None = None
    held_out: data.Dataset | None = None  # of the rows to train on, those that judge each step
    watch: Watch | None = None  # that validates steps, where there is one
    stairs: Stairs | None = None  # what widths cost
    statistics: dict[str, Any] = field(
        default_factory=dict
    )  # of calibrations, by graph: candidates share them
    foreign: dict[tuple[str, str], models.Model] = field(
        default_factory=dict
    )  # what was made to predict another arithmetic, by precision and the arithmetic's name
    search: bool = True  # for a mix of precisions too
    named: bool = False  # every candidate, by a recipe

    def calibration(self, batch: int) -> Iterator[dict[str, np.ndarray]]:
        """Yield the calibration inputs afresh, a few rows at a time."""
        size = self.rows.calibration.fixed_batch or min(batch, CALIBRATION_BATCH)
        return (feeds for feeds, _ in self.rows.calibration.batches(size))

    def context(self, candidate: Candidate, batch: int, progress: Progress) -> passes.Context:
        """Return what this job gives a candidate's passes; `batch` is how many rows the model takes."""
        return passes.Context(
            arithmetic=candidate.toolchain.arithmetic,
            calibration=lambda: self.calibration(batch),
            progress=progress,
            twin=self.twin,
            training=self._epochs(),
            validation=None if self.held_out is None else HeldOut(self.held_out),
            original=self.model,
            staircase=None if self.stairs is None else self.stairs.of(candidate, progress),
            work=self.settings.work,
        )

    def _epochs(self) -> Epochs | None:
        settings = self.settings
        if self.training is None:
            return None
        return Epochs(self.training, settings.data.seed, settings.smaller.augment)

    def watched(self, batch: int, folder: Path) -> Job:
        """Return the job with what validates steps: on held-out rows to train on, else on the calibration rows.

        Its files go into `folder`, which is not there yet; made-up inputs judge by how alike outputs are.
        """
        rows = self.rows.calibration if self.held_out is None else self.held_out
        metric = metrics.choose(None, made_up=True) if rows.source == data.RANDOM else self.metric
        watch = Watch(self.model, rows, metric, self.budget.max_drop, batch, folder, self.settings.trial)
        return replace(self, watch=watch)

    def imagined(self, batch: int) -> Job:
        """Return the job with a twin to calibrate on, where there is no data and a twin can be made."""
        made = self.rows.calibration
        if made.source != data.RANDOM or not len(made):
            return self
        elements = max(sum(value.size for value in made.feed(made.rows[:1]).values()), 1)
        size = made.fixed_batch or max(1, min(batch, TWIN_ROWS, TWIN_ELEMENTS // elements))
        some = made.take(made.rows[:TWIN_ROWS])
        return replace(
            self, twin=datafree.twin(self.model, lambda: (feeds for feeds, _ in some.batches(size)))
        )


def prepare(
    source: Path | importers.Imported,
    *,
    target_name: str,
    data_path: Path | None,
    calib_path: Path | None,
    train_path: Path | None = None,
    metric_name: str | None,
    budget: Budget,
    recipe_path: Path | None,
    precisions: Sequence[str] | None = None,
    engine_names: Sequence[str] | None = None,
    settings: Settings,
) -> Job:
    """Read and check everything; raises UsageError or InputError in one sentence."""
    target = _with_engines(targets.get(target_name), engine_names)
    metric = metrics.get(metric_name) if metric_name else None
    toolchain = next((t for t in target.toolchains if t.engine == BASELINE.engine), BASELINE)
    if target.arch == "any":
        raise UsageError(f"the target {target.name!r} runs nothing; choose another target")
    candidates = recipe.read(recipe_path, target) if recipe_path else plan(target, precisions)
    model, told = _model(source)
    if recipe_path is None and precisions is None:
        candidates += plan(target, suited(model) + (TRAINED if train_path else ()), suggested=True)
    candidates, absent = _runnable(candidates)
    if train_path is None and (settings.smaller.mode == ALWAYS or learns(candidates)):
        raise UsageError(NO_ROWS)
    rows, warnings = _rows(model, data_path, calib_path, settings.data)
    warnings = (*told, *absent, *warnings)
    labels = rows.evaluation.labels
    if metric is not None and metric.needs_labels and labels is None:
        where = f"{data_path} has none" if data_path else "give it with --data"
        raise InputError(f"the metric {metric.name} needs an array 'labels' (or 'target'): {where}")
    if metric is None and labels is None and data_path is not None:
        warnings += ("the data has no labels: judged by agreement with the original model",)
    chosen = metric or metrics.choose(labels, made_up=rows.evaluation.source == data.RANDOM)
    if (machine := _machine()) != target.arch and target.arch != "any":
        warnings += (f"measured on this {machine} machine, as a stand-in for {target.name} ({target.arch})",)
    trained = data.load(train_path, model.inputs, settings=settings.data) if train_path else None
    kept, held_out = (None, None)
    if trained is not None:
        kept, held_out = hold_out(trained, settings.smaller, settings.data.seed)
    return Job(
        model=model,
        target=target,
        rows=rows,
        metric=chosen,
        metric_text=metric_name or chosen.name,
        budget=budget,
        original=Candidate(recipe.ORIGINAL, precision_of(model), toolchain),
        candidates=candidates,
        digests={
            "model": digest_of(model),
            "data": file_digest(data_path) if data_path else NO_DATA,
            "calibration": file_digest(calib_path) if calib_path else NO_DATA,
            **({"training": file_digest(train_path)} if train_path else {}),
        },
        warnings=warnings,
        settings=settings,
        training=kept,
        held_out=held_out,
        stairs=Stairs(target, settings.smaller.measure_widths),
        search=recipe_path is None and precisions is None,
        named=recipe_path is not None,
    )


def learns(candidates: Sequence[Candidate]) -> bool:
    """Say whether any of them cannot be without rows to train on."""
    return any(step.name in ("qat", "distill", "finetune") for c in candidates for step in c.steps)


def _with_engines(target: targets.Target, names: Sequence[str] | None) -> targets.Target:
    """Return the target with the toolchains of these engines alone; raises UsageError where it has none of one."""
    if names is None:
        return target
    there = dict.fromkeys(t.engine for t in target.toolchains)
    for name in names:
        if name not in there:
            raise UsageError(f"{target.name} has no engine {name!r}; it has: {', '.join(there)}")
    return replace(target, toolchains=tuple(t for t in target.toolchains if t.engine in names))


def _runnable(candidates: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], tuple[str, ...]]:
    """Return the candidates whose engine is here, and a sentence about those that are not.

    Raises MissingToolError where none is.
    """
    absent = {c.toolchain.answers_in: engines.missing(c.toolchain.answers_in) for c in candidates}
    found = tuple(c for c in candidates if absent[c.toolchain.answers_in] is None)
    reasons = [reason for reason in absent.values() if reason]
    if not found and reasons:
        raise MissingToolError(reasons[0])
    return found, (f"some engines were not tried: {'; '.join(reasons)}",) if reasons else ()


def _model(source: Path | importers.Imported) -> tuple[models.Model, tuple[str, ...]]:
    """Return the model, and for an imported one what is to be said about the import and its check."""
    if isinstance(source, Path) and not importers.foreign(source):
        return models.load(source), ()
    limit = models.ModelSettings().max_bytes
    imported = importers.read(source, max_bytes=limit) if isinstance(source, Path) else source
    return imported.model, (*imported.notes, *imported.check())


def _rows(
    model: models.Model, data_path: Path | None, calib_path: Path | None, settings: data.DataSettings
) -> tuple[data.Split, tuple[str, ...]]:
    if data_path is None and calib_path is None:
        made = datafree.imagine(model, settings)
        note = (
            "no data was given: calibrated on made-up inputs, judged by how alike the outputs are to the original's"
            " on them"
        )
        return data.Split(made, made), (note,)
    calibration = data.load(calib_path, model.inputs, settings=settings) if calib_path else None
    if data_path is None:
        evaluation = datafree.imagine(model, settings)
        extra = (
            "no evaluation data was given: made-up inputs, judged by how alike the outputs are to the original's",
        )
    else:
        evaluation, extra = data.load(data_path, model.inputs, settings=settings), ()
    rows = data.split(evaluation, calibration, settings)
    return rows, (*extra, *evaluation.notes, *rows.notes)


def _machine() -> str:
    machine = platform.machine().lower()
    return MACHINES.get(machine, machine)
