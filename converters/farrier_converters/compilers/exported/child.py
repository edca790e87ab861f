"""Runs in a process of its own: reads an ONNX file, writes the exported program."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Export `source` (ONNX, every shape known) to `target` (.pt2)."""
    import torch

    from ...model import load
    from .module import export

    torch.export.save(export(load(Path(request["source"]))), request["target"])
    return {"version": torch.__version__}
