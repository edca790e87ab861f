"""The null compiler: an empty artifact. The template to copy, and the double for tests."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.targets import Toolchain

from ..model import Model
from . import Compiled


class NullCompiler:
    """Writes nothing into the artifact."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write an empty file."""
        path = folder / f"{model.name}.{toolchain.format}"
        path.write_bytes(b"")
        return Compiled(path)
