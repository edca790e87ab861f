"""Files of torch: exported programs are converted in a process of their own, checkpoints are refused."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from farrier_contracts.errors import InputError, MissingToolError

from ...model import ModelSettings, load
from .._imported import Imported
from .archive import vetted

INSTALL = "pip install 'farrier[torch]'"
CONVERT_LIMIT_S = 600.0
CHILD = "farrier_converters.importers.torch.child"


def read(path: Path, *, max_bytes: int) -> Imported:
    """Import a `.pt2` file of `torch.export.save`; raises InputError, and MissingToolError without torch.

    It was compared with torch on noise when this returns; `check` tells what was found.
    """
    members = vetted(path, max_bytes=max_bytes)
    missing = [name for name in ("torch", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingToolError(f"{path} takes {' and '.join(missing)} to read; run: {INSTALL}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for member, content in members.items():
            target = folder / "program" / member
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        target = folder / f"{path.stem}.onnx"
        _convert(path, folder / "program", target)
        try:
            model = load(target, settings=ModelSettings(max_bytes=max_bytes))
            found = json.loads((folder / "checked.json").read_text())
        except InputError as error:
            raise InputError(str(error).replace(str(target), str(path))) from None
    return Imported(model, (), lambda: tuple(found))


def _convert(path: Path, program: Path, target: Path) -> None:
    command = [sys.executable, "-m", CHILD, str(program), str(target)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONVERT_LIMIT_S,
            env={**os.environ, "PYTHONSAFEPATH": "1", "CUDA_VISIBLE_DEVICES": ""},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"torch did not convert {path} within {CONVERT_LIMIT_S:g} s") from None
    if done.returncode or not target.is_file():
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise InputError(f"torch cannot convert {path}: {words[-1][:300] if words else 'no reason given'}")


def refuse(path: Path, *, max_bytes: int) -> Imported:
    """Say why a checkpoint is not read; raises InputError."""
    raise InputError(
        f"{path} is a checkpoint of torch: a pickle, which can run code when it is read, and no graph; "
        "give the module to farrier.optimize in Python, or save it with torch.export.save as .pt2 or as ONNX"
    )
