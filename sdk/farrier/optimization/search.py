"""The loop of the trade: measure the baseline, build, validate, measure the gain, keep only what wins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts.errors import BudgetError

from ..stages import NOTE
from . import drops, mixed, portable, sentences, trial
from .build import Built, as_it_came
from .job import Job
from .output import lock
from .recipe import ORIGINAL
from .result import Entry
from .smaller import search as smaller
from .smaller import stairs, watch
from .trade import Trade, build_one, deliverable, left_out, part, place, silent
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
    smaller: Mapping[str, Any] | None = None  # networks that were tried
    steps: list[dict[str, Any]] | None = None  # of what is delivered, each validated
    widths: Mapping[str, Any] | None = None  # what they cost, where what is delivered was pruned by it


def search(job: Job, stage: Path, progress: Progress) -> Found:
    """Build, measure and choose; raises BudgetError naming the best there is."""
    original = as_it_came(job.model, job.original, place(stage, job.original))
    progress("running the original model", 0.0)
    batch = trial.probe_batch(original, job.rows.evaluation, job.settings.trial)
    progress("checking the calibration rows", 0.02)
    notes = drops.calibration_notes(job)
    for note in notes:  # said at once: who reads it may want to stop here
        progress(f"{NOTE}{note}", 0.02)
    job = (
        replace(job, warnings=(*job.warnings, *notes))
        .imagined(batch)
        .watched(batch, stage / "build" / ".steps")
    )
    builds, absent = _build_all(job, original, stage, batch=batch, progress=progress)
    if not any(deliverable(built, job) for built in builds.values()):
        raise BudgetError(sentences.nothing(absent, job.target.name))
    forecast = _forecast(job, builds, stage, batch=batch, progress=part(progress, 0.3, 0.1))
    entries = trial.run(
        builds,
        job.rows.evaluation,
        job.metric,
        batch=batch,
        settings=job.settings.trial,
        progress=part(progress, 0.4, 0.2),
    )
    trade = Trade(job, stage, batch, builds, entries, absent, forecast)
    choice = trade.elect()
    facts = networks = None
    if mixed.wanted(job, choice, entries):
        facts = trade.mix(choice, part(progress, 0.6, 0.15))
        choice = trade.elect()
    if smaller.wanted(job, choice):
        networks = trade.shrink(choice, part(progress, 0.75, 0.1))
        choice = trade.elect()
    late = {name: b for name, b in builds.items() if name not in trade.forecasted}
    forecast.outlooks += portable.look(job, late, original, progress=part(progress, 0.85, 0.05))
    if choice.delivered is None:
        raise BudgetError(sentences.impossible(entries[choice.best], choice, job, trade.conclusion))
    delivered = builds[choice.delivered]
    return Found(
        original,
        delivered,
        trade.judged(choice),
        _profile(delivered, job, part(progress, 0.9, 0.1)),
        _warnings(trade.job, delivered, entries, forecast),
        mixed=facts,
        predictions=forecast.to_document(),
        smaller=networks,
        steps=_steps(delivered, job),
        widths=None if job.stairs is None else stairs.document(job.stairs.of(delivered.candidate, progress)),
    )


def _profile(delivered: Built, job: Job, progress: Progress) -> tuple[tuple[int, float], ...]:
    if delivered.candidate.toolchain.stand_in:  # whose times would mislead a device
        return ()
    progress("measuring batch sizes", 0.0)
    free = job.rows.evaluation.fixed_batch is None
    return trial.profile(delivered, job.rows.evaluation, job.settings.trial, free=free)


def _warnings(
    job: Job, delivered: Built, entries: Mapping[str, Entry], forecast: portable.Forecast
) -> tuple[str, ...]:
    noisy = max((e.latency.spread for e in entries.values() if e.latency), default=0.0)
    return (
        *job.warnings,
        *delivered.notes,
        *sentences.stand_in(entries.values(), job.target.name),
        *portable.warnings(forecast.outlooks, delivered.candidate.name),
        *((sentences.busy(noisy),) if noisy > NOISY_SPREAD else ()),
    )


def _steps(delivered: Built, job: Job) -> list[dict[str, Any]] | None:
    """Return the figures of each step that led to what is delivered, where these were judged."""
    if job.watch is None or not job.watch.wants(delivered.candidate):
        return None
    return watch.document(job.watch.figures(delivered.candidate, delivered.digests))


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


def _build_all(
    job: Job, original: Built, stage: Path, *, batch: int, progress: Progress
) -> tuple[dict[str, Built], list[Entry]]:
    """Return every candidate that could be built, the original first, and why the others are left out."""
    builds: dict[str, Built] = {ORIGINAL: original}
    absent: list[Entry] = []
    for index, candidate in enumerate(job.candidates):
        span = (0.05 + 0.25 * index / len(job.candidates), 0.25 / len(job.candidates))
        try:
            built = build_one(job, candidate, stage, batch=batch, progress=part(progress, *span))
        except Exception as error:  # whatever a pass trips over costs this candidate, not the others
            absent.append(left_out(candidate, f"{sentences.UNBUILT}{sentences.brief(error)}", job))
            continue
        twin = next((b.candidate.name for b in builds.values() if b.same_as(built)), None)
        if twin is None:
            builds[candidate.name] = built
        else:
            absent.append(left_out(candidate, f"the same graph as {twin}", job))
    return builds, absent
