"""Keras models (.h5, .keras) and SavedModel folders, through TensorFlow's own float TFLite in a child process.

TensorFlow is asked for in an environment of its own, where the variable FARRIER_TENSORFLOW_PYTHON names that one's
Python: it pins other versions of what is used here.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from farrier_contracts.errors import InputError, MissingToolError

from . import _keras_child
from ._imported import Imported
from .tflite import read as read_tflite

PYTHON = "FARRIER_TENSORFLOW_PYTHON"
INSTALL = "pip install 'farrier[tensorflow]'"
CONVERT_LIMIT_S = 600.0
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "KERAS_BACKEND": "tensorflow"}


def read(path: Path, *, max_bytes: int) -> Imported:
    """Import a Keras model as ONNX; inputs and outputs carry the names that Keras gives them.

    Raises MissingToolError without TensorFlow, InputError for a model that TensorFlow does not load or convert.
    """
    if not path.exists():
        raise InputError(f"there is no model at {path}")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{path.stem}.tflite"
        _convert(path, target)
        try:
            imported = read_tflite(target, max_bytes=max_bytes)
        except InputError as error:
            raise InputError(str(error).replace(str(target), str(path))) from None
        content = target.read_bytes()
    return Imported(imported.model, imported.notes, partial(_check, content, path.stem, max_bytes))


def _check(content: bytes, stem: str, max_bytes: int) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / f"{stem}.tflite"
        target.write_bytes(content)
        return read_tflite(target, max_bytes=max_bytes).check()


def _convert(path: Path, target: Path) -> None:
    # as text, because Python would look for keras in the folder of a script first, and find this module
    script = Path(_keras_child.__file__).read_text()
    command = [_python(path), "-c", script, str(path.resolve()), str(target)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=CONVERT_LIMIT_S,
            cwd=target.parent,
            env={**os.environ, **QUIET, "PYTHONPATH": ""},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"TensorFlow did not convert {path} within {CONVERT_LIMIT_S:g} s") from None
    except OSError as error:
        raise MissingToolError(
            f"{PYTHON} names {command[0]}, which cannot be run: {error.strerror}"
        ) from None
    if done.returncode or not target.is_file():
        words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        if words and words[-1] == "No module named 'tensorflow'":
            raise MissingToolError(f"{PYTHON} names {command[0]}, which has no TensorFlow; run: {INSTALL}")
        raise InputError(
            f"TensorFlow cannot convert {path}: {words[-1][:300] if words else 'no reason given'}"
        )


def _python(path: Path) -> str:
    named = os.environ.get(PYTHON)
    if named:
        return named
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingToolError(
            f"{path} is a Keras model, which takes TensorFlow to read; run: {INSTALL} "
            f"(or set {PYTHON} to a Python that has it)"
        )
    return sys.executable
