"""Where a pruning's results go: a folder or one file, put there in one step."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from farrier_contracts.errors import UsageError
from farrier_converters.model import Model, save

from ..optimization.output import folder
from .page import html
from .result import Pruning

MODEL, REPORT, PAGE = "pruned.onnx", "report.json", "report.html"
MARKS = (REPORT, MODEL)  # what a former result has


def check(out: Path) -> None:
    """Raise UsageError unless results can go there: a folder that is absent, empty or a former result, or a file."""
    if out.suffix != ".onnx":
        folder.check(out, MARKS)
    elif not out.absolute().parent.is_dir():
        raise UsageError(f"the folder {out.absolute().parent} does not exist; make it first")
    elif out.is_dir():
        raise UsageError(f"{out} is a folder; give a file for the model, or a folder for a report too")


def write(found: Pruning, model: Model, out: Path) -> None:
    """Put the model there, and the report beside it where that is a folder."""
    if out.suffix == ".onnx":
        with tempfile.TemporaryDirectory(dir=out.absolute().parent, prefix=f".{out.name}.") as name:
            save(model, Path(name) / out.name)
            (Path(name) / out.name).replace(out)
        return
    with folder.staged(out, MARKS) as stage:
        save(model, stage / MODEL)
        document = json.dumps(found.to_document(), indent=2, allow_nan=False)
        (stage / REPORT).write_text(document + "\n", encoding="utf-8")
        (stage / PAGE).write_text(html(found), encoding="utf-8")
