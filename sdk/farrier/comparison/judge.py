"""Two models over the same rows, batch by batch, in the engine's own kernels: metric and distance of the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError
from farrier_converters import metrics
from farrier_converters.compare import decibels
from farrier_converters.data import Dataset
from farrier_converters.graph import run
from farrier_converters.model import Model

from .result import Judged

BATCH = 32  # rows a run, where the models leave that free


@dataclass
class _Distance:
    """Sums over one output."""

    name: str
    signal: float = 0.0
    error: float = 0.0
    largest: float = 0.0
    equal: int = 0
    count: int = 0
    real: bool = True

    def add(self, a: np.ndarray, b: np.ndarray) -> None:
        if a.shape != b.shape:
            raise InputError(
                f"output {self.name!r} has shape {list(a.shape)} in the first model, {list(b.shape)} in the second"
            )
        self.real = a.dtype.kind == "f"
        self.equal += int((a == b).sum())
        self.count += a.size
        if self.real:
            wide = a.astype(np.float64)
            self.signal += float(np.square(wide).sum())
            self.error += float(np.square(wide - b).sum())
            self.largest = max(self.largest, float(np.abs(wide - b).max(initial=0.0)))

    def to_document(self) -> dict[str, Any]:
        finite = np.isfinite(self.error)
        return {
            "name": self.name,
            "snr_db": round(decibels(self.signal, self.error), 2) if self.real else None,
            "max_error": self.largest if self.real and finite else None,
            "equal": round(self.equal / max(self.count, 1), 4),
        }


def judge(
    a: Model,
    b: Model,
    data: Dataset,
    metric: metrics.Metric,
    *,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> Judged:
    """Return both models' metric and the distance of their outputs; raises InputError where one does not run."""
    names = [spec.name for spec in a.outputs if spec.name in {other.name for other in b.outputs}]
    if not names or names[0] != a.outputs[0].name:
        listed = [", ".join(spec.name for spec in model.outputs) for model in (a, b)]
        raise InputError(f"the models have different outputs: {listed[0]} and {listed[1]}; export both alike")
    meters = metric.start(), metric.start()
    distances = [_Distance(name) for name in names]
    sessions = [_open(model, which) for model, which in ((a, "first"), (b, "second"))]
    size = data.fixed_batch or BATCH
    done = 0
    for feeds, rows in data.batches(size):
        one, two = (_call(s, names, feeds, w) for s, w in zip(sessions, ("first", "second"), strict=True))
        padded = size - len(rows) if data.fixed_batch else 0
        one, two = ([_cut(v, size, padded) for v in values] for values in (one, two))
        wanted = one if not metric.needs_labels else [_labels(data, rows, metric)]
        meters[0].add(one, wanted)
        meters[1].add(two, wanted)
        for distance, x, y in zip(distances, one, two, strict=True):
            distance.add(x, y)
        done += len(rows)
        progress("running both models", done / len(data))
    values = [meter.value() for meter in meters]
    drop = metrics.drop(metric, *values)
    found = tuple(distance.to_document() for distance in distances)
    return Judged(metric.name, values[0], values[1], drop, metric.relative, found)


def _open(model: Model, which: str) -> run.InferenceSession:
    try:
        return run.session(model.proto)
    except run.runtime_errors() as error:
        raise InputError(f"ONNX Runtime cannot run the {which} model: {run.brief(error)}") from None


def _call(
    session: run.InferenceSession, names: list[str], feeds: dict[str, np.ndarray], which: str
) -> list[np.ndarray]:
    try:
        return [np.asarray(value) for value in session.run(names, feeds)]
    except run.runtime_errors() as error:
        raise InputError(f"the data does not fit the {which} model: {run.brief(error)}") from None


def _cut(value: np.ndarray, size: int, padded: int) -> np.ndarray:
    """Drop the results of padded rows."""
    return value[: size - padded] if padded and value.ndim and value.shape[0] == size else value


def _labels(data: Dataset, rows: np.ndarray, metric: metrics.Metric) -> np.ndarray:
    if data.labels is None:
        raise InputError(f"the metric {metric.name} needs an array 'labels' (or 'target') in the data")
    return data.labels[rows]
