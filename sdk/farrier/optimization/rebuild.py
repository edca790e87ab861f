"""What a former run delivered, made again from its lock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from farrier_contracts.errors import InputError, UsageError
from farrier_converters.search import Budget

from . import recipe as recipes
from .build import as_it_came
from .job import NO_ROWS, Job, learns
from .output import lock
from .result import Entry
from .search import Found
from .smaller.stairs import Stairs, of_document
from .trade import build_one, place
from .trial import Progress


def rebuild(job: Job, former: lock.Lock, stage: Path, progress: Progress) -> Found:
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
    if job.training is None and learns([candidate]):
        raise UsageError(NO_ROWS)
    job = job.imagined(batch)
    widths = of_document(former.document.get("widths"))
    job = replace(job, stairs=Stairs(job.target, fixed=widths))
    original = as_it_came(job.model, job.original, place(stage, job.original))
    delivered = original
    if candidate.steps:
        delivered = build_one(job, candidate, stage, batch=batch, progress=progress, timed=False)
    for index, (step, digest) in enumerate(zip(candidate.steps, delivered.digests, strict=True)):
        wanted = {f"pass {index + 1} ({step.name})": digest}
        lock.require_same(former, "passes", wanted, what="the result of")
    return Found(original, delivered, entries, profile, tuple(former["warnings"]), former)


def asked(former: lock.Lock) -> tuple[str, str, Budget, tuple[str, ...]]:
    """Return the target, metric, budget and augmentation of a former run; raises InputError."""
    try:
        inputs = former["inputs"]
        return (
            inputs["target"],
            inputs["metric"],
            Budget(**former["budget"]),
            tuple(inputs.get("augment", ())),
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"the lock is damaged ({error}); optimize again") from None
