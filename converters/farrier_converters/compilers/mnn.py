"""MNN: float networks for phones, in a format of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from .. import tools
from ..graph.edit import standard
from ..model import Model, save
from ..tools.process import call
from . import Compiled
from .fixed import one_row
from .onnx import proven

TOOL = "mnn"


class MnnCompiler:
    """Writes `.mnn` files that take one row."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Convert the model and let MNN open it; raises InputError, MissingToolError.

        Quantizers are refused: MNN's converter aborts on the weights of a convolution that come out of one.
        """
        tools.python_of(TOOL)
        if any(standard(node, "QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node):
            raise InputError("MNN takes no quantized graph; give it a float one")
        fixed, options = one_row(model)
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            source, target = Path(work) / "model.onnx", Path(work) / "model.mnn"
            save(fixed, source)
            call(TOOL, {"source": str(source), "target": str(target)}, folder=Path(work))
            path.write_bytes(target.read_bytes())
        return proven(Compiled(path, options), TOOL, tools.get(TOOL).title)
