"""Compilers and engines that are not part of Farrier's base, each run by a Python that has it.

That is this Python where the tool is importable here, else one in an environment of the tool's own: they pin versions
that exclude each other. `python -m farrier_converters.tools NAME` makes that environment.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from farrier_contracts.errors import MissingToolError, UsageError

HOME = "FARRIER_TOOLS"  # the variable that names the folder of the tools' environments


@dataclass(frozen=True)
class Tool:
    """A heavy tool: `module` is a package of its own, with an `__init__`; `packages` is what pip installs for it."""

    name: str
    title: str
    module: str
    packages: tuple[str, ...]


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("openvino", "OpenVINO", "openvino", ("openvino>=2024.6", "numpy")),
        Tool("executorch", "ExecuTorch", "executorch.exir", ("executorch>=1.0", "torch>=2.9", "numpy")),
        Tool(
            "iree",
            "IREE",
            "iree.compiler",
            ("iree-base-compiler[onnx]>=3.9", "iree-base-runtime>=3.9", "numpy"),
        ),
        Tool("mnn", "MNN", "MNN", ("MNN>=3.2", "numpy")),
        Tool(
            "tflite-runtime",
            "TensorFlow Lite's runtime 2.14",
            "tflite_runtime",
            ("tflite-runtime==2.14.0", "numpy>=1.26,<2"),  # for Python up to 3.11
        ),
        Tool("tvm", "TVM", "tvm", ("apache-tvm>=0.27", "onnx>=1.17", "numpy")),
        Tool("vela", "Vela", "ethosu.vela", ("ethos-u-vela>=4.4",)),
        Tool("xla", "JAX", "torchax", ("torchax>=0.0.13", "jax>=0.10", "torch>=2.9", "numpy")),
        Tool("coreml", "Core ML Tools", "coremltools", ("coremltools>=9.0", "torch>=2.9", "numpy")),
    )
}


def get(name: str) -> Tool:
    """Return the tool called `name`; raises UsageError."""
    try:
        return TOOLS[name]
    except KeyError:
        raise UsageError(f"unknown tool {name!r}; choose one of: {', '.join(TOOLS)}") from None


def home() -> Path:
    """Return the folder that holds one environment per tool."""
    named = os.environ.get(HOME)
    return Path(named) if named else Path.home() / ".local" / "share" / "farrier" / "tools"


def environment_python(name: str) -> Path:
    """Return where the Python of a tool's own environment is, or would be."""
    folder = home() / name
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def python_of(name: str) -> Path:
    """Return a Python that has the tool; raises MissingToolError with the command that installs it."""
    tool = get(name)
    if _importable(tool.module):
        return Path(sys.executable)
    python = environment_python(name)
    if python.is_file():
        return python
    raise MissingToolError(
        f"{tool.title} is not installed; run: pip install 'farrier[{name}]', "
        f"or for an environment of its own: python -m farrier_converters.tools {name}"
    )


def missing(name: str) -> str | None:
    """Return the sentence of `python_of` where no Python here has the tool, None where one has."""
    try:
        python_of(name)
    except MissingToolError as error:
        return str(error)
    return None


def _importable(module: str) -> bool:
    """Say whether a package is there; a mere folder of that name, in which Python might be started, is none."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        return False
    return spec is not None and spec.origin is not None
