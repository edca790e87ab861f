"""The compiler: writes the file, and lets LiteRT open it where LiteRT is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ...measure.child import Child, EngineFailure
from ...model import Model
from ...tflite.write import write
from .. import Compiled
from .convert import convert
from .errors import Code

ENGINE = "litert"


class TfliteCompiler:
    """Writes `.tflite` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Convert and write the model; raises InputError where a node has no counterpart or LiteRT refuses the file.

        LiteRT opens it in a process of its own, which a file may take down. Without LiteRT the file is not opened.
        """
        file, options = convert(model)
        path = folder / f"{model.name}.{toolchain.format}"
        path.write_bytes(write(file))
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Compiled(path, options)
        try:
            with Child(path, ENGINE, options=options):
                return Compiled(path, options)
        except EngineFailure as error:
            path.unlink()
            raise InputError(f"{Code.ENGINE.value} LiteRT cannot load {model.name}: {error}") from None
