"""Mixed precision: where no quantized candidate will do, each layer gets the precision that it bears."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from farrier_converters import passes
from farrier_converters.data import RANDOM
from farrier_converters.mixed.search import MOST_VALIDATIONS, Found, search
from farrier_converters.mixed.sensitivity import Sensitivity, measure
from farrier_converters.mixed.solve import Assignment, total
from farrier_converters.mixed.ways import FLOAT, Way, steps
from farrier_converters.passes.int8 import settled
from farrier_converters.search import Candidate, Choice, Step

from .build import Built
from .job import Job
from .recipe import options
from .result import Entry
from .trial import Progress

NAME = "mixed"
QUANTIZE = "int8"  # the pass whose layers are weighed one by one
INTEGERS = ("int8", "int8-smooth")  # the precisions that it leads to: a mix can only be larger or slower


@dataclass(frozen=True)
class MixedSettings:
    """How much a mixed search may look at."""

    rows: int = 32  # calibration rows that sensitivities are measured on
    most_validations: int = MOST_VALIDATIONS  # on all evaluation rows


@dataclass(frozen=True)
class Proposal:
    """The mix that was found, None where none is allowed, and the facts for the report."""

    candidate: Candidate | None
    facts: dict[str, Any] = field(default_factory=dict)


def wanted(job: Job, choice: Choice, entries: Mapping[str, Entry]) -> bool:
    """Say whether a mix could be better than what there is: no quantized candidate is good enough as it stands."""
    measured = any(e.drop is not None for e in entries.values() if e.precision in INTEGERS)
    made_up = job.rows.evaluation.source == RANDOM  # which layers bear what shows on real rows alone
    if not measured or not job.search or made_up:
        return False
    return choice.delivered is None or entries[choice.delivered].precision not in INTEGERS


def base_of(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the first candidate that quantizes: its toolchain and passes are what the mix is made of."""
    return next((c for c in candidates if any(step.name == QUANTIZE for step in c.steps)), None)


def propose(
    job: Job,
    *,
    batch: int,
    build: Callable[[Candidate], Built],
    drop: Callable[[Built], float],
    progress: Progress,
    settings: MixedSettings = MixedSettings(),
) -> Proposal:
    """Weigh each layer, then find the fastest mix whose drop, measured by `drop`, is within the budget.

    `build` makes an artifact of a candidate. Raises what passes and compilers raise.
    """
    base = base_of(job.candidates)
    if base is None:
        return Proposal(None)
    at = next(index for index, step in enumerate(base.steps) if step.name == QUANTIZE)
    context = replace(job.context(base, batch, _silent), statistics={})
    graph = job.model
    for step in base.steps[:at]:
        graph = passes.get(step.name).run(graph, options(step), context)
    # one method for every mix, so that a mix built again from its recipe is the same; none corrects its biases
    method = settled(graph, options(base.steps[at]), context).method
    shared = {**base.steps[at].options, "method": method, "bias_correction": False}
    ways = (Way("int8", QUANTIZE, shared),)
    if job.budget.max_size_bytes is not None:
        ways += (Way("int4", QUANTIZE, shared, mark="narrow"),)
    measured = measure(
        graph,
        ways,
        context,
        rows=_rows(job, batch, settings.rows),
        progress=lambda share: progress("weighing each layer", 0.6 * share),
    )
    if not any(len(c) > 1 for c in measured.costs.values()):
        return Proposal(None)
    tried = 0

    def candidate_of(assignment: Assignment, name: str) -> Candidate:
        found = steps(assignment, ways, measured.layers)
        return replace(
            base, name=name, precision=NAME, steps=(*base.steps[:at], *(Step(n, o) for n, o in found))
        )

    def validate(assignment: Assignment) -> float:
        nonlocal tried
        tried += 1
        progress("validating a mix", 0.6 + 0.4 * tried / settings.most_validations)
        return drop(build(candidate_of(assignment, f"{NAME}-{tried}")))

    found = search(
        measured.costs,
        validate,
        max_drop=job.budget.max_drop,
        limits=_limits(job, measured),
        most_validations=settings.most_validations,
    )
    if found.assignment is None or set(found.assignment.values()) <= {FLOAT}:
        return Proposal(None, _facts(measured, found))
    return Proposal(candidate_of(found.assignment, NAME), _facts(measured, found))


def _rows(job: Job, batch: int, count: int) -> list[dict[str, np.ndarray]]:
    rows, taken = [], 0
    for feeds in job.calibration(batch):
        rows.append(feeds)
        taken += max((len(value) for value in feeds.values() if value.ndim), default=1)
        if taken >= count:
            break
    return rows


def _limits(job: Job, measured: Sensitivity) -> dict[str, float]:
    size = job.budget.max_size_bytes
    return {} if size is None else {"bytes": size - measured.base_bytes}


def _facts(measured: Sensitivity, found: Found) -> dict[str, Any]:
    assignment: Mapping[str, str] = found.assignment or {}
    loss = total(measured.costs, assignment, "loss") if assignment else None
    return {
        **({} if loss is None else {"loss": loss}),
        "layers": [
            {
                "name": layer,
                "way": assignment.get(layer, FLOAT),
                "ways": {name: vars(cost) for name, cost in measured.costs[layer].items()},
            }
            for layer in measured.layers
        ],
        "validations": [{"loss": trial.loss, "drop": trial.drop} for trial in found.trials],
    }


def _silent(_stage: str, _share: float) -> None:
    pass
