"""Engines that load ONNX itself: compiling is writing the file, and proof that the engine takes it."""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ..graph.compact.shrink import shrink
from ..measure.child import Child, EngineFailure
from ..model import Model, save
from . import Compiled

TITLE = "ONNX Runtime"
ENGINE = "onnxruntime"


class OnnxCompiler:
    """Writes `.onnx` files for ONNX Runtime."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the model and let ONNX Runtime open it; raises InputError with its reason where it does not.

        What a quantized graph holds without need is left out (see `shrink`).
        """
        compiled = Compiled(folder / f"{model.name}.{toolchain.format}")
        save(shrink(model), compiled.path)
        return proven(compiled, ENGINE, TITLE)


def proven(compiled: Compiled, engine: str, title: str) -> Compiled:
    """Return an artifact that its engine opens; raises InputError with its reason, and leaves no file, else.

    It opens in a process of its own: some graphs take an engine down with them.
    """
    try:
        with Child(compiled.path, engine, options=compiled.options):
            return compiled
    except EngineFailure as error:
        compiled.path.unlink()
        raise InputError(f"{title} cannot load {compiled.path.stem}: {error}") from None


def stand_in(model: Model, toolchain: Toolchain, folder: Path) -> Path | None:
    """Write what ONNX Runtime runs in place of an artifact that it cannot run; None where it is no stand-in."""
    if toolchain.stand_in != ENGINE:
        return None
    before = folder / "before"
    before.mkdir()
    path = before / f"{model.name}.onnx"
    save(model, path)
    return path
