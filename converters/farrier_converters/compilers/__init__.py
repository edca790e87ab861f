"""The compilers Farrier knows: each turns an optimized graph into the file that one kind of engine loads.

A new one is one file with a class, and one line here. Targets name compilers; see `farrier_contracts.targets`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Toolchain

from ..model import Model

COMPILERS: dict[str, str] = {
    "null": "farrier_converters.compilers.null:NullCompiler",
    "onnx": "farrier_converters.compilers.onnx:OnnxCompiler",
}


class Compiler(Protocol):
    """Makes artifacts."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Path:
        """Write the artifact into `folder`, which exists, and return its path. Raises InputError."""
        ...


def get(name: str) -> Compiler:
    """Return the compiler called `name`; raises UsageError."""
    try:
        module, _, constant = COMPILERS[name].partition(":")
    except KeyError:
        raise UsageError(f"unknown compiler {name!r}; choose one of: {', '.join(COMPILERS)}") from None
    return getattr(import_module(module), constant)()
