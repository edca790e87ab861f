"""What a model reaches on rows in ONNX Runtime, and what a run of it costs on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from farrier_contracts.errors import InputError
from farrier_converters.data import Dataset
from farrier_converters.graph import run
from farrier_converters.metrics import Metric
from farrier_converters.model import Model

BATCH = 64  # rows a run, where the model leaves that free
ROUNDS = 15  # of timing, in which the models take turns
ROUND_S = 0.02  # time that a model gets in each
WARM = 3  # runs before the first that counts


def evaluated(model: Model, data: Dataset, metric: Metric, *, reference: Model | None = None) -> float:
    """Return the metric of a model over rows; of its agreement with `reference` where the metric needs no labels.

    Inputs that the model calls otherwise than the data are taken in their order. Raises InputError.
    """
    if metric.needs_labels and data.labels is None:
        raise InputError(f"the metric {metric.name} needs an array 'labels' (or 'target') in the data")
    meter = metric.start()
    own = _runner(model, data)
    other = None if reference is None or metric.needs_labels else _runner(reference, data)
    for feeds, rows in data.batches(data.fixed_batch or BATCH):
        found = [_rows(value, len(rows)) for value in own(feeds)]
        if other is not None:
            wanted = [_rows(value, len(rows)) for value in other(feeds)]
        else:
            wanted = [] if data.labels is None else [np.asarray(data.labels[rows])]
        meter.add(found, wanted)
    value = meter.value()
    if not math.isfinite(value):
        raise InputError(f"the {metric.name} of {model.name} is not a finite number")
    return value


def timed(models: Mapping[str, Model], data: Dataset) -> dict[str, float]:
    """Return the median milliseconds of a run of one row (or the model's fixed batch), one thread, taking turns."""
    rows = np.resize(data.rows, data.fixed_batch or 1)
    feeds = data.feed(rows)
    runners = {name: _runner(model, data) for name, model in models.items()}
    for runner in runners.values():
        for _ in range(WARM):
            runner(feeds)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(ROUNDS):
        for name, runner in runners.items():
            until = time.perf_counter() + ROUND_S
            while True:
                started = time.perf_counter()
                runner(feeds)
                ended = time.perf_counter()
                times[name].append(1e3 * (ended - started))
                if ended >= until:
                    break
    return {name: float(np.median(found)) for name, found in times.items()}


def parameters(model: Model) -> int:
    """Return the number of stored floats of one axis or more."""
    return sum(
        math.prod(tensor.dims)
        for tensor in model.proto.graph.initializer
        if tensor.dims and tensor.data_type in (1, 10, 11, 16)  # FLOAT, FLOAT16, DOUBLE, BFLOAT16
    )


def _runner(model: Model, data: Dataset) -> Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]:
    try:
        session = run.session(model.proto)
    except run.runtime_errors() as error:
        raise InputError(f"ONNX Runtime cannot run {model.name}: {run.brief(error)}") from None
    own, given = [spec.name for spec in model.inputs], [spec.name for spec in data.inputs]
    names = dict(zip(own, own if set(own) <= set(given) else given, strict=False))

    def call(feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        try:
            found = session.run(None, {name: feeds[other] for name, other in names.items()})
        except run.runtime_errors() as error:
            raise InputError(f"the data does not fit {model.name}: {run.brief(error)}") from None
        return [np.asarray(value) for value in found]

    return call


def _rows(value: np.ndarray, count: int) -> np.ndarray:
    return value[:count] if value.ndim else value
