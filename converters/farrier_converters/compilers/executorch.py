"""ExecuTorch: what PyTorch runs on phones, as a `.pte` file with XNNPACK's kernels."""

from __future__ import annotations

import tempfile
from pathlib import Path

from farrier_contracts.targets import Toolchain

from .. import tools
from ..model import Model
from ..tools.process import call
from . import Compiled
from .exported import exported
from .fixed import one_row
from .onnx import proven

TOOL = "executorch"


class ExecuTorchCompiler:
    """Writes `.pte` files that take one row."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Export the graph, lower it to XNNPACK and let the runtime open it; raises InputError, MissingToolError.

        The scales are the graph's own. What XNNPACK does not take is in the artifact's notes.
        """
        tools.python_of(TOOL)
        fixed, options = one_row(model)
        path = folder / f"{model.name}.{toolchain.format}"
        with tempfile.TemporaryDirectory() as work:
            target = Path(work) / "model.pte"
            request = {"source": str(exported(fixed, Path(work))), "target": str(target)}
            said = call(TOOL, request, folder=Path(work))
            path.write_bytes(target.read_bytes())
        compiled = Compiled(path, options, notes=_notes(said["slow"]))
        return proven(compiled, TOOL, tools.get(TOOL).title)


def _notes(slow: dict[str, int]) -> tuple[str, ...]:
    return tuple(
        f"{count} x {name}: not taken by XNNPACK, runs in ExecuTorch's portable kernels"
        for name, count in sorted(slow.items())
    )
