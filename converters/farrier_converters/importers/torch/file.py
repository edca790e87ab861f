"""Files of torch: exported programs are converted in a process of their own, checkpoints are refused."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from farrier_contracts.errors import InputError

from ...model import ModelSettings, load
from ...tools.process import Limits, ask
from .._imported import Imported
from .archive import vetted
from .program import need_torch

LIMITS = Limits(seconds=600.0)
CHILD = "farrier_converters.importers.torch.child"


def read(path: Path, *, max_bytes: int) -> Imported:
    """Import a `.pt2` file of `torch.export.save`; raises InputError, and MissingToolError without torch.

    It was compared with torch on noise when this returns; `check` tells what was found.
    """
    members = vetted(path, max_bytes=max_bytes)
    need_torch()
    with tempfile.TemporaryDirectory() as name:
        folder, target = Path(name), Path(name) / f"{path.stem}.onnx"
        for member, content in members.items():
            part = folder / "program" / member
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
        request = {"program": str(folder / "program"), "target": str(target)}
        title = f"torch, reading {path},"
        found = ask(Path(sys.executable), CHILD, request, title=title, folder=folder, limits=LIMITS)
        try:
            model = load(target, settings=ModelSettings(max_bytes=max_bytes))
        except InputError as error:
            raise InputError(str(error).replace(str(target), str(path))) from None
    return Imported(model, (), lambda: tuple(found))


def refuse(path: Path, *, max_bytes: int) -> Imported:
    """Say why a checkpoint is not read; raises InputError."""
    raise InputError(
        f"{path} is a checkpoint of torch: a pickle, which can run code when it is read, and no graph; "
        "give the module to farrier.optimize in Python, or save it with torch.export.save as .pt2 or as ONNX"
    )
