"""The loop of the trade: measure the baseline, build, validate, measure the gain, keep only what wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts.bundle import names
from farrier_contracts.errors import BudgetError, FarrierError, InputError
from farrier_converters.search import (
    Budget,
    Candidate,
    Choice,
    Figures,
    choose,
    parse_drop,
    parse_latency,
    parse_size,
)

from . import drops, folder, lock, mixed, portable, trial
from . import recipe as recipes
from .build import Built, as_it_came, build
from .deliver import Delivery, deliver
from .job import Job, Settings, prepare
from .recipe import ORIGINAL
from .result import REFERENCE, Entry, Result
from .trial import Progress

MADE_UP_DROP = 0.1  # noise shows whether a model is broken, not how many points it loses
NOTE = "note: "  # what a stage begins with that is to be read, not waited for
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


def optimize(
    model: str | Path,
    *,
    target: str = "host",
    data: str | Path | None = None,
    calib: str | Path | None = None,
    train: str | Path | None = None,
    metric: str | None = None,
    max_drop: float | str | None = None,
    max_latency: float | str | None = None,
    max_size: int | str | None = None,
    precision: str | Sequence[str] | None = None,
    recipe: str | Path | None = None,
    locked: str | Path | None = None,
    out: str | Path,
    name: str | None = None,
    version: str | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> Result:
    """Fit a model to a target within a budget, and write the delivered bundle and report into `out`.

    `max_drop` is a share (0.01) or "1%" (None: 1 %, or 10 % where inputs are made up), `max_latency`
    milliseconds or "8ms", `max_size` bytes or "4MB". `precision` ("int8" or "int8,fp16", or a sequence) is
    tried instead of what suits target and model. `train` names rows for quantization-aware training, with
    labels or without. `locked` rebuilds what a former run delivered, without measuring again.
    `progress(stage, share)` is called on the way.
    Raises UsageError, InputError or BudgetError; nothing is written then.
    """
    if max_drop is None:
        max_drop = Budget.max_drop if data else MADE_UP_DROP
    budget = Budget(
        max_drop=parse_drop(max_drop) if isinstance(max_drop, str) else max_drop,
        max_latency_ms=parse_latency(max_latency) if isinstance(max_latency, str) else max_latency,
        max_size_bytes=parse_size(max_size) if isinstance(max_size, str) else max_size,
    )
    for text, check in ((name, names.bundle), (version, names.version)):
        if text is not None:
            check(text)
    out = Path(out)
    folder.check(out)
    former = lock.read(Path(locked)) if locked else None
    if former is not None:
        target, metric, budget = _asked(former)
    job = prepare(
        Path(model),
        target_name=target,
        data_path=_path(data),
        calib_path=_path(calib),
        train_path=_path(train),
        metric_name=metric,
        budget=budget,
        recipe_path=_path(recipe),
        precisions=precision.replace(" ", "").split(",") if isinstance(precision, str) else precision,
        settings=settings or Settings(),
    )
    progress = progress or _silent
    with folder.staged(out) as stage:
        found = _rebuild(job, former, stage, progress) if former else _search(job, stage, progress)
        job = replace(job, warnings=found.warnings)
        return deliver(
            Delivery(
                job,
                found.original,
                found.delivered,
                found.entries,
                found.profile,
                found.lock,
                found.mixed,
                found.predictions,
            ),
            stage,
            out,
            name=name,
            version=version,
        )


def _search(job: Job, stage: Path, progress: Progress) -> Found:
    """Build, measure and choose; raises BudgetError naming the best there is."""
    original = as_it_came(job.model, job.original, _place(stage, job.original))
    progress("running the original model", 0.0)
    batch = trial.probe_batch(original, job.rows.evaluation, job.settings.trial)
    progress("checking the calibration rows", 0.02)
    notes = drops.calibration_notes(job)
    for note in notes:  # said at once: who reads it may want to stop here
        progress(f"{NOTE}{note}", 0.02)
    job = replace(job, warnings=(*job.warnings, *notes))
    job = job.imagined(batch)
    builds, left_out = _build_all(job, original, stage, batch=batch, progress=progress)
    forecast = _forecast(job, builds, stage, batch=batch, progress=_part(progress, 0.3, 0.1))
    entries = trial.run(
        builds,
        job.rows.evaluation,
        job.metric,
        batch=batch,
        settings=job.settings.trial,
        progress=_part(progress, 0.4, 0.3),
    )
    choice = portable.elect(entries, forecast.variants, lambda e: _choose(e, job.budget))
    facts = None
    if mixed.wanted(job, choice, entries):
        try:
            facts = _mix(job, builds, entries, choice, stage, batch=batch, progress=_part(progress, 0.7, 0.2))
        except Exception as error:  # as with any candidate
            job = replace(job, warnings=(*job.warnings, f"no mix of precisions was tried: {_brief(error)}"))
        choice = portable.elect(entries, forecast.variants, lambda e: _choose(e, job.budget))
        late = {name: b for name, b in builds.items() if name == mixed.NAME}
        forecast.outlooks += portable.look(job, late, original, progress=_part(progress, 0.85, 0.05))
    if choice.delivered is None:
        raise BudgetError(_impossible(entries[choice.best], choice, job.budget))
    delivered = builds[choice.delivered]
    progress("measuring batch sizes", 0.9)
    free = job.rows.evaluation.fixed_batch is None
    profile = trial.profile(delivered, job.rows.evaluation, job.settings.trial, free=free)
    noisy = max((e.latency.spread for e in entries.values() if e.latency), default=0.0)
    warnings = (*job.warnings, *_stand_in(entries.values(), job.target.name))
    warnings = (*warnings, *portable.warnings(forecast.outlooks, choice.delivered))
    if noisy > NOISY_SPREAD:
        warnings = (*warnings, _busy(noisy))
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
        built = _build(job, candidate, stage, batch=batch, progress=_silent)
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
        return _build(job, candidate, stage, batch=batch, progress=_silent)

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
            built = _build(job, candidate, stage, batch=batch, progress=_part(progress, *span))
        except Exception as error:  # whatever a pass trips over costs this candidate, not the others
            left_out.append(_left_out(candidate, f"cannot be built: {_brief(error)}", job))
            continue
        twin = next((b.candidate.name for b in builds.values() if b.same_as(built)), None)
        if twin is None:
            builds[candidate.name] = built
        else:
            left_out.append(_left_out(candidate, f"the same graph as {twin}", job))
    return builds, left_out


def _rebuild(job: Job, former: lock.Lock, stage: Path, progress: Progress) -> Found:
    """Build what the lock delivered, from the same inputs; raises InputError where anything differs."""
    lock.require_same(former, "inputs", job.digests, what="the")
    try:
        locked = former["delivered"]
        candidate = recipes.candidate(locked["candidate"], job.target)
        entries = tuple(Entry.from_document(figures) for figures in former["figures"])
        profile = tuple((point["batch"], point["latency_ms"]) for point in former["profile"])
        batch = int(locked["calibration_batch"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the lock is damaged ({type(error).__name__}: {error}); optimize again") from None
    job = job.imagined(batch)
    original = as_it_came(job.model, job.original, _place(stage, job.original))
    delivered = original
    if candidate.steps:
        delivered = _build(job, candidate, stage, batch=batch, progress=progress, timed=False)
    for index, (step, digest) in enumerate(zip(candidate.steps, delivered.digests, strict=True)):
        wanted = {f"pass {index + 1} ({step.name})": digest}
        lock.require_same(former, "passes", wanted, what="the result of")
    return Found(original, delivered, entries, profile, tuple(former["warnings"]), former)


def _asked(former: lock.Lock) -> tuple[str, str, Budget]:
    """Return the target, metric and budget of a former run; raises InputError."""
    try:
        return former["inputs"]["target"], former["inputs"]["metric"], Budget(**former["budget"])
    except (KeyError, TypeError) as error:
        raise InputError(f"the lock is damaged ({error}); optimize again") from None


def _build(
    job: Job, candidate: Candidate, stage: Path, *, batch: int, progress: Progress, timed: bool = True
) -> Built:
    place = _place(stage, candidate)
    progress(f"building {candidate.name}", 0.0)
    context = replace(job.context(candidate.toolchain.arithmetic, batch, progress), statistics=job.statistics)
    return build(job.model, candidate, place, batch=batch, context=context, timed=timed)


def _place(stage: Path, candidate: Candidate) -> Path:
    (stage / "build").mkdir(exist_ok=True)
    return stage / "build" / candidate.name.replace("/", "_")


def _choose(entries: Mapping[str, Entry], budget: Budget) -> Choice:
    figures = [
        Figures(e.name, e.drop, e.latency.p50_ms, e.size_bytes)
        for e in entries.values()
        if e.latency is not None and e.drop is not None and e.size_bytes is not None
    ]
    original = next(f for f in figures if f.name == ORIGINAL)
    return choose(original, figures, budget)


def _impossible(best: Entry, choice: Choice, budget: Budget) -> str:
    reason = next(v.reason for v in choice.verdicts if v.name == best.name)
    latency = best.latency.p50_ms if best.latency else float("nan")
    slow = budget.max_latency_ms is not None and latency > budget.max_latency_ms
    other = "choose a faster target" if slow else "try fewer bits, like --precision w4a8,int4"
    return (
        f"the budget cannot be met; the best there is, {best.name}, {reason} (in all: {latency:.3g} ms, "
        f"{best.size_bytes} bytes, a drop of {best.drop:.2%}): allow more, or {other}"
    )


def _stand_in(entries: Iterable[Entry], target: str) -> tuple[str, ...]:
    """Say which candidates this machine's own integer kernels could not judge."""
    names = [e.name for e in entries if e.arithmetic == REFERENCE]
    if not names:
        return ()
    return (
        f"{', '.join(names)}: judged in reference arithmetic, because this machine's integer kernels compute "
        f"otherwise than those of {target}; latency is that of this machine's integer kernels",
    )


def _busy(spread: float) -> str:
    return f"the machine was busy: latencies spread by {spread:.0%} between rounds; measure again when it is quiet"


def _brief(error: Exception) -> str:
    text = str(error) if isinstance(error, FarrierError) else f"{type(error).__name__}: {error}"
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)[:300]


def _left_out(candidate: Candidate, reason: str, job: Job) -> Entry:
    return Entry(candidate.name, candidate.precision, reason=reason, metric_name=job.metric.name)


def _part(progress: Progress, start: float, span: float) -> Progress:
    return lambda stage, share: progress(stage, start + span * share)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)


def _silent(_stage: str, _share: float) -> None:
    pass
