"""MNN converts an ONNX file to its own format."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .command import run


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Convert `source` (.onnx) to `target` (.mnn)."""
    converter = str(Path(sys.executable).with_name("mnnconvert"))
    files = ["--modelFile", request["source"], "--MNNModel", request["target"]]
    said = run([converter, "-f", "ONNX", *files, "--bizCode", "farrier"])
    if not Path(request["target"]).is_file():  # it ends with 0 where it knows no form of an operator
        raise RuntimeError(said.strip().splitlines()[-1] if said.strip() else "it wrote no file")
    return {}
