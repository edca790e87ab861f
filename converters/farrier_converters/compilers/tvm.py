"""TVM: machine code for one kind of processor, with the default schedules."""

from __future__ import annotations

import tempfile
from pathlib import Path

from farrier_contracts.targets import Toolchain

from .. import tools
from ..model import Model, save
from ..tools.process import call
from . import Compiled
from .fixed import one_row
from .onnx import proven

TOOL = "tvm"
HOST = "host"


class TvmCompiler:
    """Writes libraries (`.so`, this machine's linker makes them) or objects for another machine's linker (`.tar`).

    They take one row. `toolchain.parameters`: `triple` and `cpu` are LLVM's words ("aarch64-linux-gnu", "cortex-a72";
    this machine's own where absent).
    """

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Compile the model, and let the runtime open it where it is for this machine.

        Artifacts for other machines are not opened. Raises InputError, MissingToolError.
        """
        tools.python_of(TOOL)
        fixed, options = one_row(model)
        given = toolchain.parameters
        triple, cpu = str(given.get("triple", "")), str(given.get("cpu", HOST))
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            source, target = Path(work) / "model.onnx", Path(work) / f"model.{'tar' if triple else 'so'}"
            save(fixed, source)
            request = {"source": str(source), "target": str(target), "triple": triple, "cpu": cpu}
            call(TOOL, request, folder=Path(work))
            path.write_bytes(target.read_bytes())
        compiled = Compiled(path, options)
        return compiled if triple else proven(compiled, TOOL, tools.get(TOOL).title)
