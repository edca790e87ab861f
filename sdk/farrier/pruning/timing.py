"""What models cost on an engine of this machine: built as they will be delivered, and timed taking turns."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain
from farrier_converters import compilers, data, passes
from farrier_converters.measure import Child, ChildSettings, EngineFailure, Latency, LatencySettings, measure
from farrier_converters.model import Model

# quick ways to integers: what they compute is as fast as with the slow ones
INT8: Mapping[str, Any] = {"method": "minmax", "bias_correction": False, "even": False, "store_rest": False}
CALIBRATION_BATCHES = 4


def timed(
    models: Mapping[str, Model],
    toolchain: Toolchain,
    precision: str,
    rows: data.Dataset,
    *,
    settings: LatencySettings = LatencySettings(),
    progress: Callable[[float], None] = lambda _share: None,
) -> dict[str, Latency]:
    """Return the latency of each model at one row (or its fixed batch), one thread, in interleaved rounds.

    Raises InputError where one cannot be built or run.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        children: dict[str, Child] = {}
        for index, (name, model) in enumerate(models.items()):
            where = Path(folder) / str(index)
            where.mkdir()
            ready = prepared(model, toolchain, precision, rows)
            made = compilers.get(toolchain.compiler).compile(ready, toolchain, where)
            child = Child(made.runs or made.path, toolchain.answers_in, ChildSettings(), options=made.options)
            try:
                children[name] = stack.enter_context(child)
            except EngineFailure as failure:
                raise InputError(f"{toolchain.engine} does not run {model.name}: {failure}") from None
        size = rows.fixed_batch or 1
        feeds = rows.feed(np.resize(rows.rows, size))
        found = measure(children, feeds, batch=size, settings=settings, progress=progress)
    times = {}
    for name, latency in found.items():
        if isinstance(latency, EngineFailure):
            raise InputError(f"{toolchain.engine} does not run {models[name].name}: {latency}")
        times[name] = latency
    return times


def prepared(model: Model, toolchain: Toolchain, precision: str, rows: data.Dataset) -> Model:
    """Return the model as the passes for a precision leave it; integers are calibrated on a few rows."""
    steps: list[tuple[str, Mapping[str, Any]]] = [("clean", {}), ("fuse", {})]
    if precision == "int8":
        steps.append(("int8", INT8))
    some = rows.take(rows.rows[:CALIBRATION_BATCHES])
    context = passes.Context(
        toolchain.arithmetic, lambda: (feeds for feeds, _ in some.batches(some.fixed_batch or 1))
    )
    for name, options in steps:
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
    return model
