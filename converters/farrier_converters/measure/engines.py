"""The engines that artifacts are measured in, as a device's agent would run them. Used in child processes."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from farrier_contracts.errors import MissingToolError, UsageError
from farrier_contracts.tensors import TensorSpec

from .. import tools

# engine -> "module:class"; importing the class's module imports the engine
ENGINES = {
    "onnxruntime": "farrier_converters.measure.onnxruntime:OnnxRuntimeSession",
    "litert": "farrier_converters.measure.litert:LiteRtSession",
    "null": "farrier_converters.measure.engines:NullSession",
    # These may be in an environment of their own: see `tools`.
    "openvino": "farrier_converters.measure.sessions.openvino_session:OpenVinoSession",
    "executorch": "farrier_converters.measure.sessions.executorch_session:ExecuTorchSession",
    "iree": "farrier_converters.measure.sessions.iree_session:IreeSession",
    "mnn": "farrier_converters.measure.sessions.mnn_session:MnnSession",
    "tflite-runtime": "farrier_converters.measure.sessions.tflite_runtime_session:TfliteRuntimeSession",
    "tvm": "farrier_converters.measure.sessions.tvm_session:TvmSession",
}
MODULES = {"onnxruntime": "onnxruntime", "litert": "ai_edge_litert"}
INSTALL = {"onnxruntime": "pip install onnxruntime", "litert": "pip install 'farrier[tflite]'"}


class Session(Protocol):
    """A loaded artifact: one call in, named arrays out, in the artifact's own order.

    With `reference`, integers are computed so that no intermediate saturates, at whatever speed. `options` are the
    artifact's own (see `compilers.Compiled`); arrays come and go as the model has them, whatever the file's layout.
    """

    version: str  # the engine and its version
    inputs: Sequence[TensorSpec]

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None: ...

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        ...


class NullSession:
    """Runs nothing: gives its inputs back. The template to copy."""

    version = "null"
    inputs: Sequence[TensorSpec] = ()

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        path.read_bytes()  # a missing artifact is as wrong here as in any engine

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs."""
        return dict(feeds)


def missing(engine: str) -> str | None:
    """Return why no artifact of an engine can be run here, without importing it; None where one can."""
    if engine not in ENGINES:
        return f"there is no engine {engine} on a workstation"
    if engine in tools.TOOLS:
        return tools.missing(engine)
    if engine in MODULES and importlib.util.find_spec(MODULES[engine]) is None:
        return f"the engine {engine} is not installed; run: {INSTALL[engine]}"
    return None


def session_type(engine: str) -> type[Session]:
    """Import an engine; raises UsageError for an unknown one and MissingToolError for one not installed."""
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}; choose one of: {', '.join(ENGINES)}")
    module, _, name = ENGINES[engine].partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError:
        command = INSTALL.get(engine, f"pip install 'farrier[{engine}]'")
        raise MissingToolError(f"the engine {engine} is not installed; run: {command}") from None


def interpreter(engine: str) -> Path:
    """Return the Python that has the engine; raises MissingToolError for a tool that none has."""
    return tools.python_of(engine) if engine in tools.TOOLS else Path(sys.executable)
