"""Everything that a finished run writes: artifact, bundle, recipe, lock and reports."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from farrier_converters.search import Candidate

from ... import report
from .. import drops, recipe
from ..build import Built, file_digest
from ..job import Job
from ..recipe import ORIGINAL
from ..result import Entry, Result
from . import fusions, pack
from . import lock as locks
from .operators import entries_of

BUNDLE_FILE = "model.farrier"
BASELINE_STEM = "original"
VERSION_DIGITS = 12  # of the artifact's digest, the bundle's version where none was given


@dataclass(frozen=True)
class Delivery:
    """What was decided; `lock` where it came from one."""

    job: Job
    original: Built
    delivered: Built
    entries: tuple[Entry, ...]
    profile: tuple[tuple[int, float], ...]
    lock: locks.Lock | None = None
    mixed: Mapping[str, Any] | None = None
    predictions: list[dict[str, Any]] | None = None
    smaller: Mapping[str, Any] | None = None
    steps: list[dict[str, Any]] | None = None
    widths: Mapping[str, Any] | None = None


def deliver(d: Delivery, stage: Path, out: Path, *, name: str | None, version: str | None) -> Result:
    """Write all files into `stage`, which becomes `out`, and return the result as it will lie there."""
    kept = _place(d, stage)
    checks = pack.vectors(kept, d.job.rows.evaluation, d.job.settings.trial.child)
    operators = entries_of(kept, d.job.target)
    shutil.rmtree(stage / "build")  # with every candidate that is not delivered
    entries = tuple(_placed(e, kept, d.original) for e in d.entries)
    facts = {
        "artifact": file_digest(kept.path),
        "golden vectors": hashlib.sha256(checks.golden).hexdigest(),
    }
    if d.lock is not None:
        locks.require_same(d.lock, "delivered", facts, what="the rebuilt")
        lock, identity = d.lock, d.lock["bundle"]
    else:
        identity = {
            "name": name or pack.bundle_name(d.job.model.name),
            "version": version or facts["artifact"][:VERSION_DIGITS],
        }
        lock = locks.Lock(_lock_document(d, kept, facts, identity, entries))
    baseline = next(e for e in entries if e.name == ORIGINAL)
    delivered = next(e for e in entries if e.kept)
    pack.write(
        stage / BUNDLE_FILE,
        kept,
        target=d.job.target,
        name=identity["name"],
        version=identity["version"],
        checks=checks,
        profile=d.profile,
        peak_memory_bytes=delivered.peak_memory_bytes or 0,
        lock=lock.to_bytes(),
    )
    (stage / "recipe.lock").write_bytes(lock.to_bytes())
    recipe.write(stage / "recipe.toml", kept.candidate)
    facts_document = report.document(
        job=_job_document(d.job),
        baseline=baseline,
        delivered=delivered,
        entries=entries,
        profile=d.profile,
        ledger=[asdict(entry) for entry in operators],
        warnings=d.job.warnings,
        environment=lock["environment"],
        recipe=recipe.document([kept.candidate])["candidate"][0],
        mixed=lock.document.get("mixed"),
        smaller=lock.document.get("smaller"),
        steps=lock.document.get("steps"),
        predictions=lock.document.get("predictions", ()),
        bundle={"file": BUNDLE_FILE, **identity, "bytes": (stage / BUNDLE_FILE).stat().st_size},
    )
    facts_document["fusions"] = fusions.of(kept.candidate, d.job.statistics)
    facts_document["drop_report"] = drops.of(d.job, kept)
    (stage / "report.json").write_text(json.dumps(facts_document, indent=1, allow_nan=False) + "\n")
    (stage / "report.html").write_text(report.html(facts_document, entries), encoding="utf-8")
    return _result(out, kept, entries, facts=facts_document)


def _place(d: Delivery, stage: Path) -> Built:
    """Put the delivered artifact and the original beside each other."""
    original, kept = d.original.path, d.delivered.path
    shutil.copyfile(original, stage / f"{BASELINE_STEM}{original.suffix}")
    target = stage / f"model{kept.suffix}"
    shutil.copyfile(kept, target)
    return replace(d.delivered, path=target)


def _placed(entry: Entry, kept: Built, original: Built) -> Entry:
    if entry.kept:
        return replace(entry, artifact=kept.path.name)
    if entry.name == ORIGINAL:
        return replace(entry, artifact=f"{BASELINE_STEM}{original.path.suffix}")
    return entry


def _lock_document(
    d: Delivery,
    kept: Built,
    facts: Mapping[str, str],
    identity: Mapping[str, str],
    entries: tuple[Entry, ...],
) -> dict[str, Any]:
    steps = zip(kept.candidate.steps, kept.digests, strict=True)
    return {
        "version": locks.VERSION,
        "environment": locks.environment(),
        "inputs": {
            **d.job.digests,
            "target": d.job.target.name,
            "metric": d.job.metric_text,
            "seed": d.job.settings.data.seed,
            "augment": list(d.job.settings.smaller.augment),
        },
        "budget": asdict(d.job.budget),
        "warnings": list(d.job.warnings),
        "bundle": dict(identity),
        "delivered": {
            **facts,
            "calibration_batch": kept.batch,
            "candidate": _candidate_document(kept.candidate),
        },
        "passes": {f"pass {i + 1} ({step.name})": digest for i, (step, digest) in enumerate(steps)},
        "profile": [{"batch": batch, "latency_ms": latency} for batch, latency in d.profile],
        **({"mixed": d.mixed} if d.mixed else {}),
        **({"smaller": d.smaller} if d.smaller else {}),
        **({"steps": d.steps} if d.steps else {}),
        **({"widths": d.widths} if d.widths else {}),
        "predictions": d.predictions or [],
        "figures": [entry.to_document() for entry in entries],
    }


def _candidate_document(candidate: Candidate) -> dict[str, Any]:
    return recipe.document([candidate])["candidate"][0]


def _job_document(job: Job) -> dict[str, Any]:
    evaluation = job.rows.evaluation
    return {
        "model": {"name": job.model.name, "sha256": job.digests["model"]},
        "target": {"name": job.target.name, "description": job.target.description},
        "budget": asdict(job.budget),
        "data": {
            "source": evaluation.source,
            "rows": len(evaluation),
            "calibration_source": job.rows.calibration.source,
            "calibration_rows": len(job.rows.calibration),
            "seed": job.settings.data.seed,
        },
        "metric": {
            "name": job.metric.name,
            "higher_is_better": job.metric.higher_is_better,
            "relative": job.metric.relative,
        },
    }


def _result(out: Path, kept: Built, entries: tuple[Entry, ...], *, facts: dict[str, Any]) -> Result:
    return Result(
        out=out,
        bundle=out / BUNDLE_FILE,
        artifact=out / kept.path.name,
        verdict=facts["verdict"],
        baseline=next(e for e in entries if e.name == ORIGINAL),
        delivered=next(e for e in entries if e.kept),
        candidates=entries,
        drop=facts["drop"],
        speedup=facts["speedup"],
        shrink=facts["shrink"],
        warnings=tuple(facts["warnings"]),
        report=facts,
    )
