"""From a model and a budget to a folder: prepare, search or rebuild, deliver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from farrier_contracts.bundle import names
from farrier_converters import importers
from farrier_converters.importers import Imported
from farrier_converters.search import Budget, parse_drop, parse_latency, parse_size

from .job import Settings, prepare
from .output import folder, lock
from .output.deliver import Delivery, deliver
from .rebuild import asked, rebuild
from .result import Result
from .search import search
from .trade import silent
from .trial import Progress

MADE_UP_DROP = 0.1  # noise shows whether a model is broken, not how many points it loses


def optimize(
    model: str | Path | Imported | object,
    *,
    example: Any = (),
    target: str = "host",
    data: str | Path | None = None,
    calib: str | Path | None = None,
    train: str | Path | None = None,
    metric: str | None = None,
    max_drop: float | str | None = None,
    max_latency: float | str | None = None,
    max_size: int | str | None = None,
    precision: str | Sequence[str] | None = None,
    engine: str | Sequence[str] | None = None,
    prune: str | None = None,
    epochs: int | None = None,
    augment: str | Sequence[str] | None = None,
    recipe: str | Path | None = None,
    locked: str | Path | None = None,
    out: str | Path,
    name: str | None = None,
    version: str | None = None,
    progress: Progress | None = None,
    settings: Settings | None = None,
) -> Result:
    """Fit a model to a target within a budget, and write the delivered bundle and report into `out`.

    `model` is a file, what an importer returned, or a torch module or exported program; a module takes an `example`
    too: a tensor for each of its inputs.
    `max_drop` is a share (0.01) or "1%" (None: 1 %, or 10 % where inputs are made up), `max_latency`
    milliseconds or "8ms", `max_size` bytes or "4MB". `precision` ("int8" or "int8,fp16", or a sequence) is
    tried instead of what suits target and model, and `engine` ("onnxruntime,litert") instead of every engine
    that the target has. `train` names rows to train on, with labels or without: for quantization-aware training, and
    for smaller networks, pruned or of fewer layers, which learn from the original. `prune` says when these are tried:
    "auto" (where quantizing alone misses the budget), "always" or "never"; each is trained for `epochs`.
    `augment` ("crop:4,mirror") names changes to pictures in every training.
    `locked` rebuilds what a former run delivered, without measuring again.
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
        target, metric, budget, augment = asked(former)
    job = prepare(
        _source(model, example),
        target_name=target,
        data_path=_path(data),
        calib_path=_path(calib),
        train_path=_path(train),
        metric_name=metric,
        budget=budget,
        recipe_path=_path(recipe),
        precisions=_words(precision),
        engine_names=_words(engine),
        settings=_settings(settings or Settings(), prune, epochs, _words(augment)),
    )
    progress = progress or silent
    with folder.staged(out) as stage:
        found = rebuild(job, former, stage, progress) if former else search(job, stage, progress)
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
                found.smaller,
                found.steps,
                found.widths,
            ),
            stage,
            out,
            name=name,
            version=version,
        )


def _settings(
    settings: Settings, prune: str | None, epochs: int | None, augment: Sequence[str] | None
) -> Settings:
    """Return the settings with what was given besides; raises UsageError."""
    if augment:
        from farrier_converters.training.augment import named

        named(augment)  # a name that is none is said at once
    given = {"mode": prune, "epochs": epochs, "augment": None if augment is None else tuple(augment)}
    changes = {name: value for name, value in given.items() if value is not None}
    return replace(settings, smaller=replace(settings.smaller, **changes))  # type: ignore[arg-type]


def _words(value: str | Sequence[str] | None) -> Sequence[str] | None:
    return value.replace(" ", "").split(",") if isinstance(value, str) else value


def _source(model: object, example: Any) -> Path | Imported:
    if isinstance(model, (str, os.PathLike)):
        return Path(model)
    return model if isinstance(model, Imported) else importers.from_torch(model, example)


def _path(value: str | Path | None) -> Path | None:
    return None if value is None else Path(value)
