"""The trade: what was built and measured so far, how more joins it, and the choice among all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from farrier_contracts import targets
from farrier_converters.measure import faithful
from farrier_converters.search import Candidate, Choice, Figures, choose

from . import mixed, portable, sentences, trial
from .build import Built, Watcher, build
from .job import Job
from .recipe import ORIGINAL
from .result import Entry
from .smaller import search as smaller
from .trial import Progress

QUANTIZED = "int8"


@dataclass
class Trade:
    """What was built and measured so far, and how more joins it."""

    job: Job
    stage: Path
    batch: int
    builds: dict[str, Built]
    entries: dict[str, Entry]
    left_out: list[Entry]
    forecast: portable.Forecast
    forecasted: frozenset[str] = frozenset()
    conclusion: str = ""  # of the search for smaller networks

    def __post_init__(self) -> None:
        self.forecasted = frozenset(self.builds)

    def elect(self) -> Choice:
        """Return the choice among all that was measured."""
        return portable.elect(
            self.entries, self.forecast.variants, lambda e: _choose(e, self.builds, self.job)
        )

    def make(self, candidate: Candidate, *, progress: Progress, watched: bool = True) -> Built:
        """Build a candidate; raises whatever a pass or the compiler raises, and what ends a watched one early."""
        return build_one(
            self.job, candidate, self.stage, batch=self.batch, progress=progress, watched=watched
        )

    def join(self, found: Mapping[str, Built], best: str, progress: Progress) -> None:
        """Measure what was built later beside the original and the best so far."""
        if not found:
            return
        self.builds.update(found)
        again = {name: self.builds[name] for name in dict.fromkeys((ORIGINAL, best, *found))}
        rows, settings = self.job.rows.evaluation, self.job.settings.trial
        self.entries.update(
            trial.run(again, rows, self.job.metric, batch=self.batch, settings=settings, progress=progress)
        )

    def mix(self, choice: Choice, progress: Progress) -> Mapping[str, Any] | None:
        """Search for a mix of precisions, and measure it; return the facts."""
        try:
            return self._mix(choice, progress)
        except Exception as error:  # as with any candidate
            note = f"no mix of precisions was tried: {sentences.brief(error)}"
            self.job = replace(self.job, warnings=(*self.job.warnings, note))
            return None

    def _mix(self, choice: Choice, progress: Progress) -> Mapping[str, Any]:
        job, batch = self.job, self.batch
        baseline = self.entries[ORIGINAL].metric or 0.0

        def make(candidate: Candidate) -> Built:
            return self.make(candidate, progress=silent)

        with trial.judging(
            self.builds[ORIGINAL],
            baseline,
            job.rows.evaluation,
            job.metric,
            batch=batch,
            settings=job.settings.trial,
        ) as drop:
            share = part(progress, 0.0, 0.8)
            found = mixed.propose(job, batch=batch, build=make, drop=drop, progress=share)
        if found.candidate is not None:
            built = make(found.candidate)
            if not any(built.same_as(other) for other in self.builds.values()):
                self.join({found.candidate.name: built}, choice.best, part(progress, 0.8, 0.2))
        return found.facts

    def shrink(self, choice: Choice, progress: Progress) -> Mapping[str, Any]:
        """Search for a smaller network, and measure what comes of it; return the facts."""

        def judge(found: Mapping[str, Built]) -> Choice:
            self.join(found, choice.best, progress)
            return self.elect()

        tools = smaller.Tools(
            build=lambda candidate, watched: self.make(candidate, progress=progress, watched=watched),
            judge=judge,
            progress=progress,
        )
        found = smaller.Search(self.job, tools, self.builds[ORIGINAL])
        finishes = smaller.finishes(self.job, self.entries)
        found.run(finishes, limited=choice.delivered is None)
        self.left_out += [left_out(candidate, reason, self.job) for candidate, reason in found.failures]
        self.conclusion = found.conclusion()
        return found.facts()

    def judged(self, choice: Choice) -> tuple[Entry, ...]:
        """Return every entry with its verdict."""
        verdicts = {v.name: v for v in choice.verdicts}
        return (
            *(
                replace(e, kept=verdicts[e.name].kept, reason=verdicts[e.name].reason)
                if e.name in verdicts
                else e
                for e in self.entries.values()
            ),
            *self.left_out,
        )


def build_one(
    job: Job,
    candidate: Candidate,
    stage: Path,
    *,
    batch: int,
    progress: Progress,
    timed: bool = True,
    watched: bool = True,
) -> Built:
    """Build a candidate in its place; raises whatever a pass or the compiler raises."""
    progress(f"building {candidate.name}", 0.0)
    context = replace(job.context(candidate, batch, progress), statistics=job.statistics)
    watch = _watcher(job, candidate) if watched else None
    where = place(stage, candidate)
    return build(job.model, candidate, where, batch=batch, context=context, timed=timed, watch=watch)


def _watcher(job: Job, candidate: Candidate) -> Watcher | None:
    """Return what validates the steps of a candidate that becomes another network."""
    watch = job.watch
    if watch is None or not watch.wants(candidate):
        return None
    exact = faithful(candidate.toolchain, QUANTIZED, targets.host())
    return lambda index, model, digest: watch.see(candidate, index, model, digest, faithful=exact)


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
            deliverable=deliverable(builds[e.name], job),
        )
        for e in entries.values()
        if e.latency is not None and e.drop is not None and e.size_bytes is not None
    ]
    original = next(f for f in figures if f.name == ORIGINAL)
    return choose(original, figures, job.budget)


def deliverable(built: Built, job: Job) -> bool:
    """Say whether the target has an engine for it; only the original may have none."""
    return built.candidate.toolchain.engine in {t.engine for t in job.target.toolchains}


def left_out(candidate: Candidate, reason: str, job: Job) -> Entry:
    """Return the entry of a candidate that was not measured."""
    toolchain = candidate.toolchain
    return Entry(
        candidate.name,
        candidate.precision,
        reason=reason,
        metric_name=job.metric.name,
        engine=toolchain.engine,
        stand_in=toolchain.stand_in,
    )


def part(progress: Progress, start: float, span: float) -> Progress:
    """Return the progress of a part that begins at `start` and takes `span` of the whole."""
    return lambda stage, share: progress(stage, start + span * share)


def silent(_stage: str, _share: float) -> None:
    """Show nothing."""
