"""Latency of several artifacts at once, in interleaved rounds, so that a drifting machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from .child import Child, EngineFailure


@dataclass(frozen=True)
class LatencySettings:
    """How long is measured: `rounds` visits to each artifact in turn, more while the machine is noisy."""

    rounds: int = 15
    most_rounds: int = 45
    quiet_spread: float = 0.1  # of the rounds' medians, above which more rounds are taken
    round_s: float = 0.03  # time an artifact gets in each round
    max_calls: int = 200  # in one round, however fast the artifact is
    probe_calls: int = 3  # after the warm-up, to learn how many calls fill a round


@dataclass(frozen=True)
class Latency:
    """Time per run of `batch` rows, in milliseconds, over all rounds.

    `spread` is the interquartile range of the rounds' medians over their median: how noisy the machine was.
    """

    batch: int
    threads: int
    p50_ms: float
    p99_ms: float
    spread: float
    throughput: float  # rows per second
    cpu_us_per_item: float
    samples_ms: tuple[float, ...] = field(default=(), repr=False)


Feeds = Mapping[str, np.ndarray]


def measure(
    children: Mapping[str, Child],
    feeds: Feeds,
    *,
    batch: int,
    settings: LatencySettings = LatencySettings(),
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, Latency | EngineFailure]:
    """Time every child with the same inputs, one round after the other; a failing child fails alone."""
    failures: dict[str, EngineFailure] = {}
    rounds: dict[str, list[tuple[np.ndarray, int]]] = {name: [] for name in children}
    calls: dict[str, int] = {}
    for turn in range(settings.most_rounds + 1):
        if turn > settings.rounds and not _noisy(rounds, failures, settings):
            break
        progress(turn / (settings.most_rounds + 1))
        for name, child in children.items():
            if name in failures:
                continue
            try:
                if turn == 0:
                    calls[name] = _calls_per_round(child, feeds, settings)
                else:
                    rounds[name].append(child.time(feeds, calls[name]))
            except EngineFailure as failure:
                failures[name] = failure
    return {
        name: failures[name] if name in failures else summarize(rounds[name], batch, child.settings.threads)
        for name, child in children.items()
    }


def summarize(rounds: list[tuple[np.ndarray, int]], batch: int, threads: int) -> Latency:
    """Reduce rounds of (nanoseconds per run, processor nanoseconds) to one Latency."""
    samples = np.concatenate([ns for ns, _ in rounds]) / 1e6
    items = batch * len(samples)
    return Latency(
        batch=batch,
        threads=threads,
        p50_ms=float(np.percentile(samples, 50)),
        p99_ms=float(np.percentile(samples, 99)),
        spread=spread(rounds),
        throughput=float(items / max(samples.sum() / 1e3, 1e-9)),
        cpu_us_per_item=sum(cpu for _, cpu in rounds) / 1e3 / items,
        samples_ms=tuple(float(s) for s in samples),
    )


def spread(rounds: list[tuple[np.ndarray, int]]) -> float:
    """Return the interquartile range of the rounds' medians over their median."""
    low, middle, high = np.percentile([np.median(ns) for ns, _ in rounds], [25, 50, 75])
    return float((high - low) / max(middle, 1.0))


def _noisy(
    rounds: Mapping[str, list[tuple[np.ndarray, int]]],
    failures: Mapping[str, EngineFailure],
    settings: LatencySettings,
) -> bool:
    return any(
        spread(taken) > settings.quiet_spread for name, taken in rounds.items() if name not in failures
    )


def _calls_per_round(child: Child, feeds: Feeds, settings: LatencySettings) -> int:
    child.time(feeds, 1)  # the warm-up
    ns, _ = child.time(feeds, 1)
    if ns[0] / 1e9 < settings.round_s:  # else this one fills a round
        ns, _ = child.time(feeds, settings.probe_calls)
    once_s = max(float(np.median(ns)) / 1e9, 1e-9)
    return int(min(max(settings.round_s / once_s, 1), settings.max_calls))
