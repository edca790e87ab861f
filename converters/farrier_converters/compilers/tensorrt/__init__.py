"""TensorRT builds its engine on the device: what is made here is the graph that it fuses well, and the recipe."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ...check.rules.tensorrt.importer import absent
from ...check.rules.tensorrt.release import Board
from ...check.rules.tensorrt.rules import refused
from ...model import Model, save
from ...sparsity.pack import unpacked
from .. import Compiled
from ..onnx import ENGINE, TITLE, proven
from .halves import halved
from .lower import lowered
from .recipe import build_of, quantized, strongly_typed
from .simpler import simplified

__all__ = ["TensorRtCompiler"]


class TensorRtCompiler:
    """Writes `.onnx` files with a build recipe beside."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the graph as TensorRT's importer reads it; the option `build` is a recipe (`EngineBuild`).

        Raises InputError for a graph of which TensorRT builds no engine on this board.
        """
        if quantized(model) and "int8" not in toolchain.precisions:
            raise InputError(f"the GPU has no INT8, and {model.name} is quantized: give the float model")
        model = simplified(unpacked(model), absent(Board.of(toolchain.parameters)))
        reason = refused(model, toolchain.parameters)
        if reason is not None:
            raise InputError(f"TensorRT builds no engine of {model.name}: {reason}")
        recipe = build_of(model, toolchain)
        made = lowered(model)
        if strongly_typed(toolchain) and quantized(model):
            made = halved(made)
        compiled = Compiled(folder / f"{model.name}.{toolchain.format}", {"build": recipe.to_dict()})
        save(made, compiled.path)
        return proven(compiled, ENGINE, TITLE)
