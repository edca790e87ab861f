"""IREE compiles an ONNX file, or StableHLO, ahead of time into one module."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from .command import run

OPSET = 17  # older graphs are raised to it by the importer


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Compile `source` to `target` (.vmfb) with the given `options` of iree-compile.

    `kind` of the source is "onnx" or "stablehlo".
    """
    from iree.compiler.tools.binaries import find_tool  # pyright: ignore[reportMissingImports]

    source, target, kind = request["source"], request["target"], request["kind"]
    if kind == "onnx":
        imported = str(Path(target).with_suffix(".mlir"))
        importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx"]
        run([*importer, source, "-o", imported, "--opset-version", str(OPSET)])
        source = imported
    run([find_tool("iree-compile"), f"--iree-input-type={kind}", source, "-o", target, *request["options"]])
    return {}
