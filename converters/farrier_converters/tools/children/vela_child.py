"""Vela compiles a full-INT8 TFLite file for an Ethos-U NPU, and estimates what it will cost there."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `source` into the folder `target`; returns the file written, Vela's summary, and what it said."""
    from ethosu.vela import vela  # pyright: ignore[reportMissingImports]

    folder = Path(request["target"])
    vela.main([request["source"], f"--accelerator-config={request['accelerator']}", f"--output-dir={folder}"])
    written = sorted(folder.glob("*_vela.tflite"))
    summary = next(iter(sorted(folder.glob("*_summary_*.csv"))), None)
    rows = [] if summary is None else list(csv.DictReader(summary.open(newline="")))
    return {"file": str(written[0]) if written else None, "summary": rows[0] if rows else {}}
