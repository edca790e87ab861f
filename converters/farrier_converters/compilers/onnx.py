"""ONNX Runtime loads ONNX itself: compiling is writing the file, and proof that the runtime takes it."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ..graph.compact.shrink import shrink
from ..measure.child import Child, EngineFailure
from ..model import Model, save
from . import Compiled

ENGINE = "onnxruntime"


class OnnxCompiler:
    """Writes `.onnx` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the model and let ONNX Runtime open it; raises InputError with its reason where it does not.

        It opens in a process of its own: some graphs take the runtime down with them. What a quantized graph holds
        without need is left out (see `shrink`).
        """
        model = shrink(model)
        path = folder / f"{model.name}.{toolchain.format}"
        save(model, path)
        try:
            with Child(path, ENGINE):
                return Compiled(path)
        except EngineFailure as error:
            path.unlink()
            raise InputError(f"ONNX Runtime cannot load {model.name}: {error}") from None
