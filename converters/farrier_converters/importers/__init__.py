"""Models of other frameworks enter as ONNX: one table from a file's ending to what reads it."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from ._imported import Imported

# ending -> "module:function", which takes the path and the largest number of bytes
IMPORTERS = {
    ".tflite": "farrier_converters.importers.tflite:read",
    ".lite": "farrier_converters.importers.tflite:read",
    ".h5": "farrier_converters.importers.keras:read",
    ".hdf5": "farrier_converters.importers.keras:read",
    ".keras": "farrier_converters.importers.keras:read",
    ".pt2": "farrier_converters.importers.torch:read",
    **dict.fromkeys((".pt", ".pth", ".ckpt"), "farrier_converters.importers.torch:refuse"),
}
SAVED_MODEL = "saved_model.pb"  # what makes a folder a SavedModel


def foreign(path: Path) -> bool:
    """Say whether this is a model that has to be imported; anything else is taken for ONNX."""
    return path.suffix.lower() in IMPORTERS or (path / SAVED_MODEL).is_file()


def read(path: Path, *, max_bytes: int) -> Imported:
    """Import a model; raises InputError, and MissingToolError where its framework is needed and absent."""
    module, _, name = IMPORTERS.get(path.suffix.lower(), IMPORTERS[".keras"]).partition(":")
    function: Callable[..., Imported] = getattr(import_module(module), name)
    return function(path, max_bytes=max_bytes)


def from_torch(module: Any, inputs: Any = (), *, dynamic_batch: bool = True, name: str = "model") -> Imported:
    """Import a torch module, with example `inputs`, or an exported program; see `importers.torch.from_torch`.

    Raises MissingToolError without torch, InputError for what is neither or cannot be exported.
    """
    from .torch import from_torch as take

    return take(module, inputs, dynamic_batch=dynamic_batch, name=name)


__all__ = ["IMPORTERS", "Imported", "foreign", "from_torch", "read"]
