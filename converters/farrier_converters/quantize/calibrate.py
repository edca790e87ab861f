"""Observe activations while a model runs over calibration data, one batch at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError, UsageError

from ..graph import run
from ..graph.types import infer
from ..model import Model
from .checkpoint import Checkpoint
from .observe import Observer


@dataclass(frozen=True)
class CalibrationSettings:
    """What bounds the memory: the model runs several times when its tensors are too many for one run."""

    chunk_elements: int = 1 << 24  # elements observed in one run, for a batch of one
    threads: int = run.THREADS
    folder: Path | None = None  # where unfinished statistics are kept; a killed run goes on from there
    checkpoint_s: float = 5.0  # between two times that they are written


def observe(
    model: Model,
    tensors: list[str],
    *,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]] | None,
    progress: Callable[[str, float], None],
    settings: CalibrationSettings = CalibrationSettings(),
    known: dict[str, Observer] | None = None,
    twin: Model | None = None,
) -> dict[str, Observer]:
    """Return the statistics of these float32 tensors over every calibration batch.

    Values are dropped after each batch, so memory does not grow with the data. Tensors in `known` are not observed
    again, and it takes up the others; those that `twin` has too are observed there. Raises InputError for data that
    the model cannot run on, and for values that are not finite; UsageError where there is no data.
    """
    found = {} if known is None else known
    missing = [name for name in tensors if name not in found]
    if not missing:
        return {name: found[name] for name in tensors}
    if batches is None:
        raise UsageError("integer quantization needs calibration data; give some with --data or --calib")
    found.update({name: Observer(name) for name in missing})
    shared = set() if twin is None else set(infer(twin.proto))
    chunks = [
        (source, chunk)
        for source, names in (
            (model, [name for name in missing if name not in shared]),
            (twin or model, [name for name in missing if name in shared]),
        )
        for chunk in (_chunks(source, names, settings) if names else [])
    ]
    for number, (source, chunk) in enumerate(chunks):
        _observe_chunk(
            source,
            [found[name] for name in chunk],
            batches=batches,
            progress=lambda share, n=number: progress("calibrate", (n + share) / len(chunks)),
            settings=settings,
        )
    return {name: found[name] for name in tensors}


def _observe_chunk(
    model: Model,
    observers: list[Observer],
    *,
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    progress: Callable[[float], None],
    settings: CalibrationSettings,
) -> None:
    inputs = {spec.name for spec in model.inputs}
    inner = [observer for observer in observers if observer.name not in inputs]
    names = [observer.name for observer in inner] or [model.outputs[0].name]
    saved = Checkpoint(
        settings.folder, model.proto, [o.name for o in observers], interval_s=settings.checkpoint_s
    )
    count, stream = saved.resume(batches, observers)
    session = run.session(run.up_to(model.proto, names), threads=settings.threads)
    for feeds in stream:
        try:
            values = session.run(names, feeds)
        except run.runtime_errors() as error:
            raise InputError(f"the calibration data does not fit the model: {run.brief(error)}") from None
        for observer, value in zip(inner, values, strict=False):
            observer.add(np.asarray(value))
        for observer in observers:
            if observer.name in inputs:
                observer.add(feeds[observer.name])
        count += 1
        saved.take(feeds)
        saved.save(observers)
        progress(count / (count + 1))  # the length of a stream is not known before its end
    if not count:
        raise InputError("the calibration data holds no samples")
    saved.save(observers, last=True)
    progress(1.0)


def _chunks(model: Model, tensors: list[str], settings: CalibrationSettings) -> list[list[str]]:
    types = infer(model.proto)
    chunks: list[list[str]] = [[]]
    total = 0
    for name in tensors:
        kind = types.get(name)
        shape = kind.shape if kind is not None and kind.shape is not None else ()
        elements = int(np.prod([size or 1 for size in shape]))
        if chunks[-1] and total + elements > settings.chunk_elements:
            chunks.append([])
            total = 0
        chunks[-1].append(name)
        total += elements
    return chunks
