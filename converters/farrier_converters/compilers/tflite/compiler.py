"""The compiler: writes the file, and lets LiteRT open it where LiteRT is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import INTEGERS, Toolchain

from ...measure.child import Child, EngineFailure
from ...model import Model
from ...sparsity.pack import packs_zeros, unpacked
from ...tflite.write import write
from ...tflite.zeros import with_sparse_weights
from .. import Compiled
from .convert import lower_model
from .errors import Code

ENGINE = "litert"


class TfliteCompiler:
    """Writes `.tflite` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Convert and write the model; raises InputError where a node has no counterpart or LiteRT refuses the file.

        Inputs and outputs are integers where the toolchain's arithmetic knows nothing else. LiteRT opens the file in a
        process of its own, which a file may take down. Without LiteRT it is not opened. Weights of many zeros become
        sparse tensors where the model says so (the pass `pack-zeros`).
        """
        arithmetic = toolchain.arithmetic
        lowered = lower_model(
            unpacked(model), integer_ends=arithmetic is not None and arithmetic.quantizers == INTEGERS
        )
        path, options = folder / f"{model.name}.{toolchain.format}", lowered.options
        file = with_sparse_weights(lowered.file) if packs_zeros(model) else lowered.file
        path.write_bytes(write(file))
        if importlib.util.find_spec("ai_edge_litert") is None:
            return Compiled(path, options)
        try:
            with Child(path, ENGINE, options=options):
                return Compiled(path, options)
        except EngineFailure as error:
            path.unlink()
            raise InputError(f"{Code.ENGINE.value} LiteRT cannot load {model.name}: {error}") from None
