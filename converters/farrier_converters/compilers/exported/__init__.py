"""The way through torch: an ONNX graph as an exported program, which several compilers start from."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from farrier_contracts.errors import MissingToolError

from ...model import Model, save
from ...tools.process import Limits, ask

TITLE = "PyTorch"


def exported(model: Model, folder: Path) -> Path:
    """Return a `.pt2` file in `folder` that computes what the model does, quantizers as torch's own operators.

    Every shape of the model must be known (`fixed.one_row`). Raises InputError for an operator that is not covered,
    MissingToolError without torch.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingToolError("this artifact is made by PyTorch; run: pip install 'farrier[torch]'")
    source, target = folder / "model.onnx", folder / "model.pt2"
    save(model, source)
    request = {"source": str(source), "target": str(target)}
    ask(Path(sys.executable), f"{__name__}.child", request, title=TITLE, folder=folder, limits=Limits())
    return target
