"""Carry the cures out: quantize again, look again, and keep the best of a few attempts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier_contracts.errors import FarrierError, InputError
from farrier_converters import metrics
from farrier_converters.compare import CompareSettings, DropReport, drop_report
from farrier_converters.data import Split
from farrier_converters.model import Model, save

from .judge import judge
from .requantize import Plan, plan_of, quantize, steps
from .result import Applied, Judged

ENOUGH = 0.95  # of the loss recovered: no further attempt
GOOD_DB = 25.0  # outputs this near to the float ones have little to recover
SMALL_DROP = 0.002  # of the metric: as good as none
MOST_SIGNAL = 0.85  # of the outputs' squared error
MOST_ATTEMPTS = 4
MOST_SHARE = 0.9  # of the remaining loss, whose layers an attempt leaves in float
MOST_LAYERS = 8  # that one attempt adds to those in float


@dataclass(frozen=True)
class Patient:
    """What is to be cured: the models, the rows, and what was found."""

    a: Model
    b: Model
    rows: Split
    metric: metrics.Metric
    report: DropReport
    judged: Judged
    settings: CompareSettings


def apply(patient: Patient, out: Path, progress: Callable[[str, float], None]) -> Applied:
    """Quantize A anew with the cures and write the best model to `out`; raises InputError where B has no quantizers."""
    base = plan_of(patient.b)
    if base is None:
        raise InputError("the second model has no quantizers: there is nothing that --apply could cure")
    report, plan = patient.report, base.with_cures((f.cure for f in patient.report.findings), exclude=False)
    best: tuple[Plan, Model, Judged] | None = None
    for number in range(MOST_ATTEMPTS):
        attempt = number / MOST_ATTEMPTS
        progress("quantizing again", attempt)
        model = _try(patient, plan, last=best is None)
        if model is None:
            break
        judged = judge(patient.a, model, patient.rows.evaluation, patient.metric)
        if best is None or _better(judged, best[2], patient):
            best = (plan, model, judged)
        if _enough(patient, best[2]):
            break
        progress("looking again", attempt + 0.5 / MOST_ATTEMPTS)
        report = drop_report(patient.a, best[1], patient.rows.evaluation, settings=patient.settings)
        further = _further(best[0], report)
        if further == plan or further == best[0]:
            break
        plan = further
    if best is None:
        raise InputError("the cures leave no model that can be quantized")
    save(best[1], out)
    before, after = patient.judged, best[2]
    return Applied(
        path=out,
        steps=steps(best[0]),
        options=best[0].to_document(),
        before=before,
        after=after,
        recovered=None if before.drop <= 0 else _recovered(before, after, patient.metric),
        recovered_signal=_recovered_signal(before, after),
    )


def _try(patient: Patient, plan: Plan, *, last: bool) -> Model | None:
    try:
        return quantize(patient.a, plan, patient.rows.calibration, lambda stage, share: None)
    except FarrierError:
        if last:
            raise
        return None


def _further(plan: Plan, report: DropReport) -> Plan:
    """Return the plan with the layers in float that make most of what is still lost."""
    found = plan.with_cures((f.cure for f in report.findings), exclude=True)
    facts = report.facts
    total, names = 0.0, []
    for name in sorted(facts.shares, key=lambda n: -facts.shares[n])[:MOST_LAYERS]:
        if total >= MOST_SHARE:
            break
        p, activation = facts.by_name[name], facts.activations.get(name)
        total += facts.shares[name]
        by_quantizer = activation is not None and activation.cost.total > activation.own / 2
        names += (p.node, *facts.readers(p)) if by_quantizer else (p.node,)
    merged = tuple(dict.fromkeys([*found.exclude, *(n for n in names if n)]))
    return Plan(found.arithmetic, merged, found.methods, found.equalize)


def _enough(patient: Patient, after: Judged) -> bool:
    """Whether what is left to recover is not worth a layer in float."""
    before = patient.judged
    signal = _recovered_signal(before, after)
    if after.snr_db < GOOD_DB and signal < ENOUGH:
        return False
    if not patient.metric.needs_labels or after.drop <= SMALL_DROP:
        return signal >= MOST_SIGNAL or before.snr_db >= GOOD_DB
    return _recovered(before, after, patient.metric) >= ENOUGH


def _better(new: Judged, old: Judged, patient: Patient) -> bool:
    if patient.metric.needs_labels and abs(new.drop - old.drop) > 1e-12:
        return new.drop < old.drop
    return new.snr_db > old.snr_db


def _recovered(before: Judged, after: Judged, metric: metrics.Metric) -> float:
    """Return the share of the lost metric that is back; of the outputs' squared error where no metric was lost."""
    if before.drop <= 0 or not metric.needs_labels:
        return _recovered_signal(before, after)
    return float(np.clip((before.drop - after.drop) / before.drop, -1.0, 1.0))


def _recovered_signal(before: Judged, after: Judged) -> float:
    return float(np.clip(1 - 10 ** ((before.snr_db - after.snr_db) / 10), -1.0, 1.0))
