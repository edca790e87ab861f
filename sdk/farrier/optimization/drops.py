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

MOST_ROWS = 64
CHECK_ELEMENTS, CHECK_LEAST_ROWS = 1 << 22, 8  # of inputs, for the check of calibration rows
REPORT_ELEMENTS, REPORT_LEAST_ROWS = 1 << 19, 2  # likewise, for the report, which fetches every inner tensor
SHARE_ROWS = 4  # in which a layer's own error is added alone
SHARE_LAYERS, SHARE_LEAST_LAYERS = 32, 4
SHARE_BYTES = 1 << 28  # of all models that are run for that: fewer layers of larger ones
QUANTIZERS = "QuantizeLinear"


def of(job: Job, built: Built) -> dict[str, Any] | None:
    """Return the drop report's document for a delivered model with quantized activations; None for any other."""
    if not any(node.op_type == QUANTIZERS for node in built.model.proto.graph.node):
        return None
    data = job.rows.evaluation
    rows = _rows(data, REPORT_ELEMENTS, REPORT_LEAST_ROWS)
    layers = int(np.clip(SHARE_BYTES // job.model.proto.ByteSize(), SHARE_LEAST_LAYERS, SHARE_LAYERS))
    share = ShareSettings(layers=layers, rows=min(rows, SHARE_ROWS))
    settings = CompareSettings(rows=rows, share=share, emulated=0)  # the search has predicted that
    try:
        report = drop_report(job.model, built.model, data, settings=settings)
    except InputError:
        return None  # the artifact runs, but not with every layer looked at
    return {"candidate": built.candidate.name, **report.to_document()}


def calibration_notes(job: Job) -> tuple[str, ...]:
    """Return what is wrong with the calibration rows, in sentences; evaluation rows of their own file are evidence."""
    rows = job.rows
    apart = rows.evaluation if job.digests["calibration"] != NO_DATA else None
    found = check(
        job.model,
        rows.calibration,
        apart,
        settings=CheckSettings(rows=_rows(rows.calibration, CHECK_ELEMENTS, CHECK_LEAST_ROWS)),
    )
    return tuple(fault.sentence for fault in found)


def _rows(data: Dataset, most_elements: int, least: int) -> int:
    elements = sum(int(np.prod(array.shape[1:])) for array in data.arrays.values())
    return int(np.clip(most_elements // max(elements, 1), least, MOST_ROWS))
