"""Float TFLite files, read without TensorFlow."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ...tflite.file import read as read_file
from .._imported import Imported
from .check import against_litert
from .convert import convert


def read(path: Path, *, max_bytes: int) -> Imported:
    """Import a float TFLite file as ONNX (opset 17); raises InputError in one sentence.

    Inside it is NCHW; inputs and outputs keep the file's own names, shapes and order of axes. The batch is free where
    nothing in the graph mixes rows.
    """
    file = read_file(path, max_bytes=max_bytes)
    model, notes = convert(file, path)
    hybrid = any("quantizes" in note for note in notes)
    return Imported(model, notes, partial(against_litert, path, model, exact=not hybrid))


__all__ = ["read"]
