"""IREE imports an ONNX file and compiles it ahead of time into one module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .command import run

OPSET = 17  # older graphs are raised to it by the importer


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `source` (.onnx) to `target` (.vmfb) with the given `options` of iree-compile."""
    from iree.compiler.tools.binaries import find_tool  # pyright: ignore[reportMissingImports]

    source, target = request["source"], request["target"]
    imported = str(Path(target).with_suffix(".mlir"))
    importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx"]
    run([*importer, source, "-o", imported, "--opset-version", str(OPSET)])
    run([find_tool("iree-compile"), "--iree-input-type=onnx", imported, "-o", target, *request["options"]])
    return {}
