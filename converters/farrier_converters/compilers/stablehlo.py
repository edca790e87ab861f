"""StableHLO: what XLA compiles on a machine with a TPU; other compilers read it too."""

from __future__ import annotations

import tempfile
from pathlib import Path

from farrier_contracts.errors import InputError
from farrier_contracts.targets import Toolchain

from .. import tools
from ..graph.edit import standard
from ..model import Model
from ..tools.process import call
from . import Compiled
from .exported import exported
from .fixed import one_row
from .onnx import stand_in

TOOL = "xla"
PLATFORM = "tpu"


class StableHloCompiler:
    """Writes portable StableHLO bytecode with the weights inside; its function `main` takes one row."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Export the graph through torch and JAX for `toolchain.parameters["platform"]`, a TPU by default.

        Products keep their precision. Raises InputError, MissingToolError.
        """
        tools.python_of(TOOL)
        if any(standard(node, "QuantizeLinear", "DequantizeLinear") for node in model.proto.graph.node):
            raise InputError("StableHLO takes no quantized graph here; give it a float one")
        fixed, options = one_row(model)
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            target = Path(work) / "model.stablehlo"
            platform = str(toolchain.parameters.get("platform", PLATFORM))
            request = {
                "source": str(exported(fixed, Path(work))),
                "target": str(target),
                "platform": platform,
            }
            call(TOOL, request, folder=Path(work))
            path.write_bytes(target.read_bytes())
        return Compiled(path, options, runs=stand_in(model, toolchain, folder))
