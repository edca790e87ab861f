"""The trial: every built candidate evaluated and timed beside the original, each in its own process."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError
from farrier_converters import metrics
from farrier_converters.data import RANDOM, Dataset
from farrier_converters.measure import (
    Child,
    ChildSettings,
    EngineFailure,
    LatencySettings,
    evaluate,
    evaluation_batch,
    measure,
    record,
    takes_batch,
)

from .build import Built
from .recipe import ORIGINAL
from .result import KERNELS, REFERENCE, Entry
from .together import together

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TrialSettings:
    """How long and how much is measured."""

    child: ChildSettings = field(default_factory=ChildSettings)
    latency: LatencySettings = field(default_factory=LatencySettings)
    profile: LatencySettings = field(default_factory=lambda: LatencySettings(rounds=5, most_rounds=10))
    profile_batches: tuple[int, ...] = (1, 2, 4, 8, 16)


def probe_batch(built: Built, data: Dataset, settings: TrialSettings) -> int:
    """Return how many rows the original model really takes at once; raises InputError where it does not run."""
    try:
        with built.child(settings.child) as child:
            child.run(data.feed(data.rows[: data.fixed_batch or 1]))
            return evaluation_batch(child, data)
    except EngineFailure as failure:
        hint = "; the inputs were made up, give real ones with --data" if data.source == RANDOM else ""
        raise InputError(f"the model {built.model.name} does not run: {failure}{hint}") from None


def run(
    builds: Mapping[str, Built],
    data: Dataset,
    metric: metrics.Metric,
    *,
    batch: int,
    settings: TrialSettings,
    progress: Progress,
) -> dict[str, Entry]:
    """Return each candidate's figures, or the reason why it has none; the original must be among them."""
    entries = {name: _blank(built, metric) for name, built in builds.items()}
    with contextlib.ExitStack() as stack:
        feeds = data.feed(data.rows[: data.fixed_batch or 1])

        def opened(name: str) -> Child | None:
            with _recorded(entries, name):
                child = builds[name].child(settings.child)
                stack.push(child)  # closed even where it does not open
                child.open()
                child.time(feeds, 2)
                entries[name] = replace(entries[name], peak_memory_bytes=child.peak_bytes())
                return child
            return None

        found = dict(zip(builds, together(opened, builds), strict=True))
        children = {name: child for name, child in found.items() if child is not None}
        _evaluate(builds, children, entries, data, metric, batch=batch, settings=settings, progress=progress)
        alive = {name: child for name, child in children.items() if not entries[name].reason}
        timed = measure(
            alive,
            feeds,
            batch=data.fixed_batch or 1,
            settings=settings.latency,
            progress=lambda share: progress("measuring latency", 0.6 + 0.4 * share),
        )
        for name, latency in timed.items():
            if isinstance(latency, EngineFailure):
                entries[name] = replace(entries[name], reason=str(latency))
            else:
                entries[name] = replace(entries[name], latency=latency)
    original = entries[ORIGINAL]
    if original.latency is None:
        raise InputError(f"the original model cannot be measured: {original.reason}")
    return entries


def _evaluate(
    builds: Mapping[str, Built],
    children: Mapping[str, Child],
    entries: dict[str, Entry],
    data: Dataset,
    metric: metrics.Metric,
    *,
    batch: int,
    settings: TrialSettings,
    progress: Progress,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reference = None
        if not metric.needs_labels and ORIGINAL in children:
            progress("running the original model", 0.0)
            try:
                with _answering(builds[ORIGINAL], children[ORIGINAL], settings) as child:
                    reference = record(child, data, Path(folder), batch=batch)
            except EngineFailure as failure:
                raise InputError(f"the original model cannot be evaluated: {failure}") from None
        done = dict.fromkeys(children, 0.0)

        def value_of(name: str) -> tuple[float, str] | None:
            def share(so_far: float) -> None:
                done[name] = so_far
                progress(f"evaluating {name}", 0.6 * sum(done.values()) / len(done))

            with _recorded(entries, name), _answering(builds[name], children[name], settings) as child:
                value = evaluate(child, data, metric, batch=batch, reference=reference, progress=share)
                return value, REFERENCE if child.reference else KERNELS
            return None

        found = dict(zip(children, together(value_of, children), strict=True))
    baseline = found.get(ORIGINAL)
    for name, answer in found.items():
        if answer is not None:
            value, arithmetic = answer
            drop = None if baseline is None else metrics.drop(metric, baseline[0], value)
            entries[name] = replace(entries[name], metric=value, drop=drop, arithmetic=arithmetic)


@contextlib.contextmanager
def judging(
    original: Built,
    baseline: float,
    data: Dataset,
    metric: metrics.Metric,
    *,
    batch: int,
    settings: TrialSettings,
) -> Iterator[Callable[[Built], float]]:
    """Give a function that returns an artifact's drop against `baseline` on all rows; infinite where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        reference = None
        if not metric.needs_labels:
            with original.judge(settings.child) as child:
                reference = record(child, data, Path(folder), batch=batch)

        def drop(built: Built) -> float:
            try:
                with built.judge(settings.child) as child:
                    value = evaluate(child, data, metric, batch=batch, reference=reference)
            except EngineFailure:
                return float("inf")
            return metrics.drop(metric, baseline, value)

        yield drop


@contextlib.contextmanager
def _answering(built: Built, timed: Child, settings: TrialSettings) -> Iterator[Child]:
    """Give the process whose answers count: the one that is timed, unless its kernels are not like the target's."""
    if built.faithful:
        yield timed
    else:
        with built.judge(settings.child) as child:
            yield child


def profile(
    built: Built, data: Dataset, settings: TrialSettings, *, free: bool
) -> tuple[tuple[int, float], ...]:
    """Return (batch, p50 in ms) of the delivered artifact for each batch size that it takes."""
    points: list[tuple[int, float]] = []
    sizes = settings.profile_batches if free else (data.fixed_batch or 1,)
    with built.child(settings.child) as child:
        for size in sizes:
            if free and size > 1 and not takes_batch(child, data, size):
                break
            feeds = data.feed(np.resize(data.rows, size))
            timed = measure({"it": child}, feeds, batch=size, settings=settings.profile)["it"]
            if isinstance(timed, EngineFailure):
                break
            points.append((size, timed.p50_ms))
    return tuple(points)


def _blank(built: Built, metric: metrics.Metric) -> Entry:
    c = built.candidate
    return Entry(
        c.name,
        c.precision,
        metric_name=metric.name,
        size_bytes=built.size_bytes,
        engine=c.toolchain.engine,
        stand_in=c.toolchain.stand_in,
    )


@contextlib.contextmanager
def _recorded(entries: dict[str, Entry], name: str) -> Iterator[None]:
    """Turn an engine's failure into the candidate's reason."""
    try:
        yield
    except EngineFailure as failure:
        entries[name] = replace(entries[name], reason=str(failure))
