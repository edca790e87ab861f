"""The loop of the trade: measure the baseline, build, validate, measure the gain, keep only what wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import BudgetError
from farrier_converters.search import Candidate, Choice, Figures, choose

from ..stages import NOTE
from . import drops, mixed, portable, sentences, trial
from .build import Built, as_it_came, build
from .job import Job
from .output import lock
from .recipe import ORIGINAL
from .result import Entry
from .trial import Progress

NOISY_SPREAD = 0.25  # of the rounds' medians; above it the report says that the machine was busy


@dataclass(frozen=True)
class Found:
    """What a search or a lock says: who is delivered, everyone's figures, and the delivered batch profile."""

    original: Built
    delivered: Built
    entries: tuple[Entry, ...]
    profile: tuple[tuple[int, float], ...]
    warnings: tuple[str, ...]
    lock: lock.Lock | None = None
    mixed: Mapping[str, Any] | None = None
    predictions: list[dict[str, Any]] | None = None


def search(job: Job, stage: Path, progress: Progress) -> Found:
    """Build, measure and choose; raises BudgetError naming the best there is."""
    original = as_it_came(job.model, job.original, place(stage, job.original))
    progress("running the original model", 0.0)
    batch = trial.probe_batch(original, job.rows.evaluation, job.settings.trial)
    progress("checking the calibration rows", 0.02)
    notes = drops.calibration_notes(job)
    for note in notes:  # said at once: who reads it may want to stop here
        progress(f"{NOTE}{note}", 0.02)
    job = replace(job, warnings=(*job.warnings, *notes))
    job = job.imagined(batch)
    builds, left_out = _build_all(job, original, stage, batch=batch, progress=progress)
    if not any(_deliverable(built, job) for built in builds.values()):
        raise BudgetError(sentences.nothing(left_out, job.target.name))
    forecast = _forecast(job, builds, stage, batch=batch, progress=_part(progress, 0.3, 0.1))
    entries = trial.run(
        builds,
        job.rows.evaluation,
        job.metric,
        batch=batch,
        settings=job.settings.trial,
        progress=_part(progress, 0.4, 0.3),
    )
    choice = portable.elect(entries, forecast.variants, lambda e: _choose(e, builds, job))
    facts = None
    if mixed.wanted(job, choice, entries):
        try:
            facts = _mix(job, builds, entries, choice, stage, batch=batch, progress=_part(progress, 0.7, 0.2))
        except Exception as error:  # as with any candidate
            job = replace(
                job, warnings=(*job.warnings, f"no mix of precisions was tried: {sentences.brief(error)}")
            )
        choice = portable.elect(entries, forecast.variants, lambda e: _choose(e, builds, job))
        late = {name: b for name, b in builds.items() if name == mixed.NAME}
        forecast.outlooks += portable.look(job, late, original, progress=_part(progress, 0.85, 0.05))
    if choice.delivered is None:
        raise BudgetError(sentences.impossible(entries[choice.best], choice, job.budget))
    delivered = builds[choice.delivered]
    profile = ()
    if not delivered.candidate.toolchain.stand_in:  # whose times would mislead a device
        progress("measuring batch sizes", 0.9)
        free = job.rows.evaluation.fixed_batch is None
        profile = trial.profile(delivered, job.rows.evaluation, job.settings.trial, free=free)
    noisy = max((e.latency.spread for e in entries.values() if e.latency), default=0.0)
    warnings = (*job.warnings, *delivered.notes, *sentences.stand_in(entries.values(), job.target.name))
    warnings = (*warnings, *portable.warnings(forecast.outlooks, choice.delivered))
    if noisy > NOISY_SPREAD:
        warnings = (*warnings, sentences.busy(noisy))
    verdicts = {v.name: v for v in choice.verdicts}
    judged = [
        replace(e, kept=verdicts[e.name].kept, reason=verdicts[e.name].reason) if e.name in verdicts else e
        for e in entries.values()
    ]
    return Found(
        original,
        delivered,
        (*judged, *left_out),
        profile,
        warnings,
        mixed=facts,
        predictions=forecast.to_document(),
    )


def _forecast(
    job: Job, builds: dict[str, Built], stage: Path, *, batch: int, progress: Progress
) -> portable.Forecast:
    """Predict what integer candidates score on other processors; add variants where a file's own differ."""
    original = builds[ORIGINAL]
    forecast = portable.Forecast(portable.look(job, builds, original, progress=progress))
    for outlook in tuple(forecast.outlooks):
        candidate = portable.variant(builds[outlook.candidate], outlook)
        if candidate is None or candidate.name in builds:
            continue
        built = build_one(job, candidate, stage, batch=batch, progress=silent)
        builds[candidate.name] = built
        forecast.variants[outlook.candidate] = candidate.name
        forecast.outlooks += portable.look(job, {candidate.name: built}, original, progress=progress)
    return forecast


def _mix(
    job: Job,
    builds: dict[str, Built],
    entries: dict[str, Entry],
    choice: Choice,
    stage: Path,
    *,
    batch: int,
    progress: Progress,
) -> Mapping[str, Any]:
    """Search for a mix of precisions, and measure it beside the original and the best so far; return the facts."""
    original, data = builds[ORIGINAL], job.rows.evaluation
    baseline = entries[ORIGINAL].metric or 0.0

    def make(candidate: Candidate) -> Built:
        return build_one(job, candidate, stage, batch=batch, progress=silent)

    with trial.judging(
        original, baseline, data, job.metric, batch=batch, settings=job.settings.trial
    ) as drop:
        found = mixed.propose(job, batch=batch, build=make, drop=drop, progress=_part(progress, 0.0, 0.8))
    if found.candidate is not None:
        built = make(found.candidate)
        if not any(built.same_as(other) for other in builds.values()):
            builds[found.candidate.name] = built
            again = {
                name: builds[name] for name in dict.fromkeys((ORIGINAL, choice.best, found.candidate.name))
            }
            part = _part(progress, 0.8, 0.2)
            settings = job.settings.trial
            entries.update(trial.run(again, data, job.metric, batch=batch, settings=settings, progress=part))
    return found.facts


def _build_all(
    job: Job, original: Built, stage: Path, *, batch: int, progress: Progress
) -> tuple[dict[str, Built], list[Entry]]:
    """Return every candidate that could be built, the original first, and why the others are left out."""
    builds: dict[str, Built] = {ORIGINAL: original}
    left_out: list[Entry] = []
    for index, candidate in enumerate(job.candidates):
        span = (0.05 + 0.25 * index / len(job.candidates), 0.25 / len(job.candidates))
        try:
            built = build_one(job, candidate, stage, batch=batch, progress=_part(progress, *span))
        except Exception as error:  # whatever a pass trips over costs this candidate, not the others
            left_out.append(_left_out(candidate, f"{sentences.UNBUILT}{sentences.brief(error)}", job))
            continue
        twin = next((b.candidate.name for b in builds.values() if b.same_as(built)), None)
        if twin is None:
            builds[candidate.name] = built
        else:
            left_out.append(_left_out(candidate, f"the same graph as {twin}", job))
    return builds, left_out


def build_one(
    job: Job, candidate: Candidate, stage: Path, *, batch: int, progress: Progress, timed: bool = True
) -> Built:
    """Build a candidate in its place; raises whatever a pass or the compiler raises."""
    progress(f"building {candidate.name}", 0.0)
    context = replace(job.context(candidate.toolchain.arithmetic, batch, progress), statistics=job.statistics)
    return build(job.model, candidate, place(stage, candidate), batch=batch, context=context, timed=timed)


def place(stage: Path, candidate: Candidate) -> Path:
    """Return the folder, not yet made, that a candidate is built in."""
    (stage / "build").mkdir(exist_ok=True)
    return stage / "build" / candidate.name.replace("/", "_")


def _choose(entries: Mapping[str, Entry], builds: Mapping[str, Built], job: Job) -> Choice:
    figures = [
        Figures(
            e.name,
            e.drop,
            e.latency.p50_ms,
            e.size_bytes,
            timed=not builds[e.name].candidate.toolchain.stand_in,
            deliverable=_deliverable(builds[e.name], job),
        )
        for e in entries.values()
        if e.latency is not None and e.drop is not None and e.size_bytes is not None
    ]
    original = next(f for f in figures if f.name == ORIGINAL)
    return choose(original, figures, job.budget)


def _deliverable(built: Built, job: Job) -> bool:
    """Say whether the target has an engine for it; only the original may have none."""
    return built.candidate.toolchain.engine in {t.engine for t in job.target.toolchains}


def _left_out(candidate: Candidate, reason: str, job: Job) -> Entry:
    toolchain = candidate.toolchain
    return Entry(
        candidate.name,
        candidate.precision,
        reason=reason,
        metric_name=job.metric.name,
        engine=toolchain.engine,
        stand_in=toolchain.stand_in,
    )


def _part(progress: Progress, start: float, span: float) -> Progress:
    return lambda stage, share: progress(stage, start + span * share)


def silent(_stage: str, _share: float) -> None:
    """Show nothing."""
