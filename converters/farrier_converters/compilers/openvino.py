"""OpenVINO loads ONNX itself, quantizers included, so its artifact is the ONNX file: one file, on every processor.

Its own format holds the same in two files (topology and weights), and its compiled form fits one version of it on one
kind of processor.
"""

from __future__ import annotations

from pathlib import Path

from farrier_contracts.targets import Toolchain

from .. import tools
from ..graph.compact.shrink import shrink
from ..model import Model, save
from . import Compiled
from .onnx import proven

ENGINE = "openvino"


class OpenVinoCompiler:
    """Writes `.onnx` files for OpenVINO."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the model and let OpenVINO open it; raises InputError, MissingToolError.

        The options name inputs and outputs: OpenVINO merges the names of a tensor and its copies.
        """
        tools.python_of(ENGINE)
        path = folder / f"{model.name}.{toolchain.format}"
        save(shrink(model), path)
        options = {"inputs": [s.name for s in model.inputs], "outputs": [s.name for s in model.outputs]}
        return proven(Compiled(path, options), ENGINE, tools.get(ENGINE).title)
