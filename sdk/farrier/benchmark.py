"""How fast an artifact or bundle is on this machine."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts import bundle
from farrier_contracts.errors import InputError, UsageError
from farrier_converters import data, npz
from farrier_converters import model as models
from farrier_converters.measure import (
    Child,
    ChildSettings,
    EngineFailure,
    Latency,
    LatencySettings,
    measure,
    takes_batch,
)

ENGINE_OF_SUFFIX = {".onnx": "onnxruntime", ".tflite": "litert"}
BUNDLE_SUFFIX = ".farrier"
MOST_THREADS = 1024


@dataclass(frozen=True)
class BatchFigures:
    """What one batch size costs. `peak_memory_bytes` is over an empty engine process, up to this batch size."""

    latency: Latency
    peak_memory_bytes: int

    def to_document(self) -> dict[str, Any]:
        """Return the form of `bench --json`."""
        latency = self.latency
        return {
            "batch": latency.batch,
            "latency_ms": {
                "p50": latency.p50_ms,
                "p99": latency.p99_ms,
                "batch": latency.batch,
                "threads": latency.threads,
                "spread": latency.spread,
            },
            "throughput": latency.throughput,
            "cpu_us_per_item": latency.cpu_us_per_item,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


@dataclass(frozen=True)
class Benchmark:
    """The figures of one model, with what ran it."""

    model: str
    engine: str
    machine: str
    threads: int
    batches: tuple[BatchFigures, ...]

    def to_document(self) -> dict[str, Any]:
        """Return the form of `bench --json`."""
        return {**vars(self), "batches": [figures.to_document() for figures in self.batches]}


@dataclass(frozen=True)
class _Subject:
    path: Path
    engine: str
    rows: data.Dataset | None  # None: made up from what the engine says the inputs are


def bench(
    model: str | Path,
    *,
    batch: Sequence[int] | None = None,
    threads: int = 1,
    settings: LatencySettings | None = None,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Benchmark:
    """Measure an `.onnx`, `.tflite` or `.farrier` file; a bundle is measured with its own golden inputs.

    Without `batch`: 1, and 4 and 8 where the batch is free. Raises UsageError, or InputError where it does not run.
    """
    path = Path(model)
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(f"threads must be 1 to {MOST_THREADS}, not {threads}")
    if batch is not None and (not batch or min(batch) < 1):
        raise UsageError("batch sizes must be at least 1")
    with _subject(path) as subject:
        try:
            with Child(subject.path, subject.engine, ChildSettings(threads=threads)) as child:
                rows = subject.rows or data.random(child.inputs)
                figures = _measure(
                    child, rows, batch, settings=settings or LatencySettings(), progress=progress
                )
                return Benchmark(path.name, child.engine_version, platform.machine(), threads, figures)
        except EngineFailure as failure:
            raise InputError(f"{path} does not run: {failure}") from None


def _measure(
    child: Child,
    rows: data.Dataset,
    sizes: Sequence[int] | None,
    *,
    settings: LatencySettings,
    progress: Callable[[str, float], None],
) -> tuple[BatchFigures, ...]:
    fixed = rows.fixed_batch
    wanted = tuple(dict.fromkeys(sizes or ((fixed,) if fixed else (1, 4, 8))))
    figures = []
    for index, size in enumerate(wanted):
        feeds = rows.feed(np.resize(rows.rows, size))
        if fixed not in (None, size) or (size > 1 and fixed is None and not takes_batch(child, rows, size)):
            if sizes is None:
                break
            raise InputError(f"the model does not take a batch of {size}; it takes {fixed or 1}")
        timed = measure(
            {"it": child},
            feeds,
            batch=size,
            settings=settings,
            progress=lambda share, at=index: progress("measuring", (at + share) / len(wanted)),
        )["it"]
        if isinstance(timed, EngineFailure):
            raise timed
        figures.append(BatchFigures(timed, child.peak_bytes()))
    return tuple(figures)


@contextmanager
def _subject(path: Path) -> Iterator[_Subject]:
    if path.suffix == BUNDLE_SUFFIX:
        with tempfile.TemporaryDirectory() as folder:
            yield _from_bundle(path, Path(folder))
        return
    engine = ENGINE_OF_SUFFIX.get(path.suffix)
    if engine is None:
        known = ", ".join([*ENGINE_OF_SUFFIX, BUNDLE_SUFFIX])
        raise UsageError(f"{path} is of no kind that can be measured ({known})")
    if path.suffix == ".onnx":
        yield _Subject(path, engine, data.random(models.load(path).inputs))
    else:
        if not path.is_file():
            raise InputError(f"there is no model at {path}")
        yield _Subject(path, engine, None)


def _from_bundle(path: Path, folder: Path) -> _Subject:
    stored = bundle.unpack(path, folder)
    manifest = stored.manifest
    artifact = manifest.artifacts[0]
    if manifest.golden is None:
        return _Subject(stored.part(artifact.part), artifact.engine, data.random(manifest.inputs))
    arrays = {
        name.removeprefix("in."): array
        for name, array in npz.read(stored.part(manifest.golden.part)).items()
        if name.startswith("in.")
    }
    rows = data.from_arrays(arrays, manifest.inputs, source=path)
    return _Subject(stored.part(artifact.part), artifact.engine, rows)
