"""ONNX Runtime loads ONNX itself: compiling is writing the file, and proof that the runtime takes it."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ..graph import run
from ..graph.shrink import shrink
from ..model import Model, save


class OnnxCompiler:
    """Writes `.onnx` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Path:
        """Write the model after ONNX Runtime has opened it; raises InputError with its reason where it does not.

        What a quantized graph holds without need is left out (see `shrink`).
        """
        model = shrink(model)
        try:
            run.session(model.proto)
        except run.runtime_errors() as error:
            raise InputError(f"ONNX Runtime cannot load {model.name}: {run.brief(error)}") from None
        path = folder / f"{model.name}.{toolchain.format}"
        save(model, path)
        return path
