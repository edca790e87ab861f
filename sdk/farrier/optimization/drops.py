"""What the report says about a quantized artifact's layers, and about the rows that calibrated it."""

from __future__ import annotations

from typing import Any

import numpy as np

from farrier_contracts.errors import InputError
from farrier_converters.calibration_check import CheckSettings, check
from farrier_converters.compare import CompareSettings, drop_report
from farrier_converters.compare.share import ShareSettings
from farrier_converters.data import Dataset

from .build import Built
from .job import NO_DATA, Job

ELEMENTS = 1 << 22  # of inputs that are looked at: fewer rows of larger inputs
MOST_ROWS, LEAST_ROWS = 64, 8
SHARE_ROWS, SHARE_LAYERS = 4, 32
QUANTIZERS = "QuantizeLinear"


def of(job: Job, built: Built) -> dict[str, Any] | None:
    """Return the drop report's document for a delivered model with quantized activations; None for any other."""
    if not any(node.op_type == QUANTIZERS for node in built.model.proto.graph.node):
        return None
    data = job.rows.evaluation
    settings = CompareSettings(rows=_rows(data), share=ShareSettings(layers=SHARE_LAYERS, rows=SHARE_ROWS))
    try:
        report = drop_report(job.model, built.model, data, settings=settings)
    except InputError:
        return None  # the artifact runs, but not with every layer looked at
    return {"candidate": built.candidate.name, **report.to_document()}


def calibration_notes(job: Job) -> tuple[str, ...]:
    """Return what is wrong with the calibration rows, in sentences; evaluation rows of their own file are evidence."""
    rows = job.rows
    apart = rows.evaluation if job.digests["calibration"] != NO_DATA else None
    found = check(job.model, rows.calibration, apart, settings=CheckSettings(rows=_rows(rows.calibration)))
    return tuple(fault.sentence for fault in found)


def _rows(data: Dataset) -> int:
    elements = sum(int(np.prod(array.shape[1:])) for array in data.arrays.values())
    return int(np.clip(ELEMENTS // max(elements, 1), LEAST_ROWS, MOST_ROWS))
