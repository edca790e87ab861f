"""A torch export: what compilers of the data centre (Neuron, the bridge of Gaudi) take on their own machines."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from farrier_contracts.targets import Toolchain

from ..model import Model
from . import Compiled
from .exported import exported
from .fixed import one_row
from .onnx import stand_in


class TorchExportCompiler:
    """Writes `.pt2` files that take one row, as `torch.export.load` reads them."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Export the graph in a process of its own; raises InputError, MissingToolError without torch."""
        fixed, options = one_row(model)
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            shutil.move(exported(fixed, Path(work)), path)
        return Compiled(path, options, runs=stand_in(model, toolchain, folder))
