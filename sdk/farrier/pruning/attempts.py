"""Pruning until the clock agrees: what was predicted is measured beside the dense model, and put right."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from farrier_converters.model import Model
from farrier_converters.passes import Context
from farrier_converters.passes.prune import prune
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.procedure import Pruned

from .request import Goals

MOST = 4  # attempts
SLACK = 1.02  # of a time: differences below are noise
SMALLEST = 1e-3  # share of the time that is aimed at
MARGIN = 0.98  # of a time that was missed, the next attempt aims at this share

Clock = Callable[[Mapping[str, Model]], Mapping[str, float]]


class Attempts:
    """One request, tried until it holds on the engine. `clock` returns milliseconds by name, {} where it has none."""

    def __init__(
        self, source: Model, goals: Goals, options: PruneOptions, context: Context, clock: Clock
    ) -> None:
        self.source, self.goals, self.options, self.context, self.clock = (
            source,
            goals,
            options,
            context,
            clock,
        )

    def best(self) -> tuple[Pruned, Mapping[str, float]]:
        """Return what was pruned, and the times of "dense" and "pruned"; the source itself where nothing is faster."""
        goals, limit = self.goals, self._limit()
        if limit is not None:
            goals = replace(goals, max_latency_ms=None, latency=min(1.0, limit))
        aim = goals.options(self.options)
        for attempt in range(MOST):
            found = prune(self.source, aim, self.context)
            times = self.clock({"dense": self.source, "pruned": found.model})
            if not times:
                return found, times
            share = times["pruned"] / times["dense"]
            if share > SLACK and not self.options.any_width:
                if attempt + 1 < MOST:
                    aim = _gentler(aim)
                    continue
                return _original(self.source, found), {**times, "pruned": times["dense"]}
            if limit is not None and share > limit * SLACK:
                if found.reached and attempt + 1 < MOST:
                    nearer = (aim.latency or limit) * limit / share * MARGIN
                    aim = replace(aim, latency=max(SMALLEST, nearer))
                    continue
                note = found.note or f"{share:.0%} of the time is left, not {limit:.0%}, as measured"
                return replace(found, reached=False, note=note), times
            return found, times
        raise AssertionError("an attempt returns")  # pragma: no cover

    def _limit(self) -> float | None:
        """Return the share of the dense model's time that may be left, by the clock; None where that is no goal."""
        if self.goals.latency is not None:
            return self.goals.latency
        if self.goals.max_latency_ms is None:
            return None
        times = self.clock({"dense": self.source})
        dense = times.get("dense")
        if dense is None:  # a target that is not here: by prediction
            from farrier_converters.pruning.procedure import totals
            from farrier_converters.pruning.staircase import default

            staircase = self.context.staircase or default("", "fp32", "")
            dense = totals(self.source, staircase).ms
        return self.goals.max_latency_ms / dense


def _gentler(options: PruneOptions) -> PruneOptions:
    """Return options that remove half as much."""
    keep = (1 + options.goal.keep) / 2
    if options.latency is not None:
        return replace(options, latency=keep)
    if options.parameters is not None:
        return replace(options, parameters=keep)
    return replace(options, ratio=1 - keep, speedup=None)


def _original(source: Model, found: Pruned) -> Pruned:
    changes = tuple(replace(change, after=change.before) for change in found.changes)
    note = "no pruned model was faster than the dense one on this engine; it stays as it is"
    return replace(
        found, model=source, after=found.before, changes=changes, blocks=(), reached=False, note=note
    )
