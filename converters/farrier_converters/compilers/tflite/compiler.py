"""The compiler: writes the file, and lets LiteRT open it where LiteRT is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import INTEGERS, Toolchain

from ...measure.child import Child, EngineFailure
from ...model import Model
from ...tflite.write import write
from .. import Compiled
from .convert import lower_model
from .errors import Code

ENGINE = "litert"


class TfliteCompiler:
    """Writes `.tflite` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Convert and write the model; raises InputError where a node has no counterpart or LiteRT refuses the file.

        Inputs and outputs are integers where the toolchain's arithmetic knows nothing else. LiteRT opens the file in a
        process of its own, which a file may take down. Without LiteRT it is not opened.
        """
        arithmetic = toolchain.arithmetic
        lowered = lower_model(
            model, integer_ends=arithmetic is not None and arithmetic.quantizers == INTEGERS
        )
        path, options = folder / f"{model.name}.{toolchain.format}", lowered.options
        path.write_bytes(write(lowered.file))
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Compiled(path, options)
        try:
            with Child(path, ENGINE, options=options):
                return Compiled(path, options)
        except EngineFailure as error:
            path.unlink()
            raise InputError(f"{Code.ENGINE.value} LiteRT cannot load {model.name}: {error}") from None
