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
            source, target = Path(work) / "model.onnx", Path(work) / "model.ort"
            save(shrink(model), source)
            request = {
                "source": str(source),
                "target": str(target),
                "signed": arithmetic is not None and arithmetic.activations == "s8",
            }
            child = f"{CHILDREN}.ort_child"
            ask(Path(sys.executable), child, request, title=TITLE, folder=Path(work), limits=Limits())
            if not target.is_file():
                raise InputError(f"{TITLE} wrote no file for {model.name}")
            compiled.path.write_bytes(target.read_bytes())
        return proven(compiled, ENGINE, TITLE)
