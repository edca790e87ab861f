"""ONNX Runtime's own format: what its builds for phones and small boards load, without an ONNX parser."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from ..graph.compact.shrink import shrink
from ..model import Model, save
from ..tools.process import CHILDREN, Limits, ask
from . import Compiled
from .onnx import ENGINE, TITLE, proven


class OrtCompiler:
    """Writes `.ort` files."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Let ONNX Runtime optimize the graph and write it; raises InputError with its reason where it does not.

        The file holds operators fused for the integers that `toolchain.arithmetic` names, and runs on any processor.
        """
        compiled = Compiled(folder / f"{model.name}.{toolchain.format}")
        arithmetic = toolchain.arithmetic
        with tempfile.TemporaryDirectory() as work:
            source = Path(work) / "model.onnx"
            save(shrink(model), source)
            request = {
                "source": str(source),
                "target": str(compiled.path.resolve()),
                "signed": arithmetic is not None and arithmetic.activations == "s8",
            }
            ask(
                Path(sys.executable),
                f"{CHILDREN}.ort_child",
                request,
                title=TITLE,
                folder=Path(work),
                limits=Limits(),
            )
        if not compiled.path.is_file():
            raise InputError(f"{TITLE} wrote no file for {model.name}")
        return proven(compiled, ENGINE, TITLE)
