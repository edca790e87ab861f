"""The search for a smaller network that keeps the budget: what it costs is measured before anything is trained.

The least cut whose untrained network is small and fast enough loses least, so it is the one that is trained; the next
order follows where that loses too much. Without limits, the cut grows as long as the metric holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from farrier_contracts.errors import FarrierError
from farrier_converters.measure import EngineFailure, measure
from farrier_converters.search import CUTS, LATENCY_TOLERANCE, Candidate, Choice, climb, least

from ..build import LEARNED, Built
from ..job import Job
from ..recipe import ORIGINAL
from ..result import Entry
from ..sentences import brief
from ..trial import Progress
from .orders import LATENCY, ORDERS, SIZE, Cuts, Order
from .settings import ALWAYS, NEVER
from .watch import CHANGING, BrokenStepError


def wanted(job: Job, choice: Choice) -> bool:
    """Say whether smaller networks are tried: where it is asked for, or the budget is missed, with rows to train on."""
    mode = job.settings.smaller.mode
    if mode == NEVER or job.training is None or job.named:
        return False
    return mode == ALWAYS or choice.delivered is None


@dataclass(frozen=True)
class Tools:
    """What the search needs of its surroundings.

    `build(candidate, watched)` raises what passes raise, and where it is watched what ends it early. `judge(builds)`
    measures them beside the original, keeps their entries and returns the choice among all so far.
    """

    build: Callable[[Candidate, bool], Built]
    judge: Callable[[Mapping[str, Built]], Choice]
    progress: Progress


@dataclass(frozen=True)
class Probe:
    """What an untrained network costs: `enough` names the limits that it keeps; `failure` says why there is none."""

    order: str
    cuts: Cuts
    finish: str
    latency_ms: float | None = None
    bytes: int | None = None
    enough: tuple[str, ...] = ()
    failure: str | None = None


@dataclass
class Search:
    """One search. `probes` and `trained` are what it did, `failures` the candidates that came to nothing, with why."""

    job: Job
    tools: Tools
    original: Built
    probes: list[Probe] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)
    failures: list[tuple[Candidate, str]] = field(default_factory=list)

    def run(self, finishes: list[Candidate], *, limited: bool) -> None:
        """Try orders and finishes until a candidate keeps the budget, or all time is spent."""
        for order in ORDERS:
            for finish in finishes:
                if self._left() and self._try(order, finish, limited=limited):
                    return

    def facts(self) -> dict[str, Any]:
        """Return what was done, for lock and report."""
        return {
            "probes": [
                {
                    **{name: value for name, value in vars(probe).items() if value is not None},
                    "cuts": dict(probe.cuts),
                    "enough": list(probe.enough),
                }
                for probe in self.probes
            ],
            "trained": list(self.trained),
        }

    def conclusion(self) -> str:
        """Say what came of it, for whoever got nothing."""
        if self.failures:
            candidate, reason = self.failures[-1]
            return f"of smaller networks, {candidate.name}: {reason}"
        if self.trained:
            return f"{len(self.trained)} smaller networks were trained, the last of them {self.trained[-1]}"
        sizes = [probe.bytes for probe in self.probes if probe.bytes is not None]
        times = [probe.latency_ms for probe in self.probes if probe.latency_ms is not None]
        best = [f"the smallest has {min(sizes)} bytes"] if sizes else []
        best += [f"the fastest takes {min(times):.3g} ms"] if times else []
        return ", ".join(("no smaller network could be made that is small and fast enough", *best))

    def _left(self) -> int:
        return self.job.settings.smaller.most_trainings - len(self.trained)

    def _try(self, order: Order, finish: Candidate, *, limited: bool) -> bool:
        if limited:
            cuts = self._least(order, finish)
            return cuts is not None and self._train(order, cuts, finish)
        tried: dict[float, bool] = {}
        while self._left() and (cut := climb(tried)) is not None:
            tried[cut] = self._train(order, {LATENCY: cut}, finish)
        return any(tried.values())

    def _least(self, order: Order, finish: Candidate) -> Cuts | None:
        """Return the least cuts whose network keeps every limit, None where there are none."""
        cuts: Cuts = {}
        budget = self.job.budget
        limits = {SIZE: budget.max_size_bytes, LATENCY: budget.max_latency_ms}
        for what in (name for name, limit in limits.items() if limit is not None):
            if cuts and what in self._probe(order, cuts, finish).enough:
                continue

            def enough(cut: float, what: str = what, before: Cuts = cuts) -> bool:
                found = self._probe(order, {**before, what: cut}, finish)
                return found.failure is not None or what in found.enough  # no larger one can be made either

            found = least(enough, (1.0, *CUTS) if not cuts else CUTS)
            if found is None:
                return None
            if found > 1.0:
                cuts = {**cuts, what: found}
        if not cuts:
            cuts = {LATENCY: CUTS[0]}
        last = self._probe(order, cuts, finish)
        return (
            cuts
            if {name for name, limit in limits.items() if limit is not None} <= set(last.enough)
            else None
        )

    def _probe(self, order: Order, cuts: Cuts, finish: Candidate) -> Probe:
        """Return what a network costs before it is trained, built and timed once."""
        wanted = {what: cut for what, cut in cuts.items() if cut > 1}
        for probe in self.probes:
            if (probe.order, probe.finish, dict(probe.cuts)) == (order.name, finish.name, wanted):
                return probe
        candidate = replace(finish)
        if wanted:
            candidate = order.candidate(wanted, finish, self.job.settings.smaller, taught=False)
        candidate = replace(candidate, name=f"probe-{len(self.probes) + 1}")
        self.tools.progress(f"{order.name} network, {_words(wanted)}: what it costs", 0.0)
        try:
            found = self._cost(self.tools.build(candidate, False), order, wanted, finish)
        except (FarrierError, ValueError, ArithmeticError) as error:
            found = Probe(order.name, wanted, finish.name, failure=brief(error))
        self.probes.append(found)
        return found

    def _cost(self, built: Built, order: Order, cuts: Cuts, finish: Candidate) -> Probe:
        budget, data = self.job.budget, self.job.rows.evaluation
        settings = self.job.settings.trial
        milliseconds = None
        if not finish.toolchain.stand_in:
            with self.original.child(settings.child) as before, built.child(settings.child) as after:
                timed = measure(
                    {ORIGINAL: before, "it": after},
                    data.feed(data.rows[: data.fixed_batch or 1]),
                    batch=data.fixed_batch or 1,
                    settings=settings.latency,
                )["it"]
            if isinstance(timed, EngineFailure):
                raise timed
            milliseconds = timed.p50_ms
        small = budget.max_size_bytes is None or built.size_bytes <= budget.max_size_bytes
        limit = float("inf") if budget.max_latency_ms is None else budget.max_latency_ms
        fast = milliseconds is None or milliseconds <= limit / (1 + LATENCY_TOLERANCE)
        enough = tuple(what for what, good in ((SIZE, small), (LATENCY, fast)) if good)
        return Probe(order.name, cuts, finish.name, milliseconds, built.size_bytes, enough)

    def _train(self, order: Order, cuts: Cuts, finish: Candidate) -> bool:
        """Train one network, judge it, and say whether it keeps the budget; its integers learn where they lose it."""
        settings = self.job.settings.smaller
        trained = any(step.name == "int8" for step in finish.steps)
        ways = (False, True) if trained else (False,)
        for learns in ways:
            if not self._left():
                return False
            candidate = order.candidate(cuts, finish, settings, trained=learns)
            self.trained.append(candidate.name)
            self.tools.progress(f"training {candidate.name}", 0.0)
            try:
                built = self.tools.build(candidate, True)
            except BrokenStepError as error:
                self.failures.append((candidate, str(error)))
                return False  # the network itself has lost too much: no integers can do better
            except Exception as error:  # whatever a pass trips over costs this candidate, not the others
                self.failures.append((candidate, brief(error)))
                return False
            choice = self.tools.judge({candidate.name: built})
            if any(v.name == candidate.name and v.feasible for v in choice.verdicts):
                return True
        return False


def finishes(job: Job, entries: Mapping[str, Entry]) -> list[Candidate]:
    """Return the candidates whose last passes a smaller network goes through: the cheapest of those that hold.

    Cheapest is what misses the limits least, or is fastest. One that is cheaper still but drops too much comes second:
    its integers can learn.
    """
    plain = [
        c
        for c in job.candidates
        if (e := entries.get(c.name)) is not None
        and e.drop is not None
        and e.size_bytes is not None
        and not any(step.name in (*LEARNED, *CHANGING) for step in c.steps)
    ]
    budget = job.budget

    def cost(candidate: Candidate) -> tuple[float, float, float]:
        entry = entries[candidate.name]
        latency = entry.latency.p50_ms if entry.latency and not entry.stand_in else 0.0
        size = float(entry.size_bytes or 0)
        ratios = (
            latency / (budget.max_latency_ms or latency or 1.0),
            size / (budget.max_size_bytes or size or 1.0),
        )
        return max(ratios), latency, size

    ordered = sorted(plain, key=cost)
    good = [c for c in ordered if (entries[c.name].drop or 0.0) <= budget.max_drop]
    chosen = good[:1]
    if ordered and ordered[0] not in chosen and any(step.name == "int8" for step in ordered[0].steps):
        chosen.append(ordered[0])
    return chosen


def _words(cuts: Cuts) -> str:
    return " and ".join(f"{what} {cut:g}x less" for what, cut in cuts.items()) or "as it is"
