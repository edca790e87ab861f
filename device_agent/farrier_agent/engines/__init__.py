"""The engines that run artifacts. A new one is one file and one line here; `null.py` is the template."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Callable, Dict, Mapping, Optional, Protocol, Type

from farrier_contracts.bundle import Artifact, Manifest, StoredBundle
from farrier_contracts.errors import BundleError, MissingToolError

if TYPE_CHECKING:
    import numpy as np

    Arrays = Mapping[str, np.ndarray]

# name in a manifest -> the class that runs it, imported on use
ENGINES = {
    "onnxruntime": "farrier_agent.engines.ort:OnnxRuntime",
    "litert": "farrier_agent.engines.litert:LiteRt",
    "edgetpu": "farrier_agent.engines.edgetpu:EdgeTpu",
    "executorch": "farrier_agent.engines.executorch:ExecuTorch",
    "iree": "farrier_agent.engines.iree:Iree",
    "openvino": "farrier_agent.engines.openvino:OpenVino",
    "tensorrt": "farrier_agent.engines.tensorrt:TensorRt",
    "null": "farrier_agent.engines.null:Null",
}


def _quietly(_seconds: float) -> None:
    pass


@dataclass(frozen=True)
class EngineSettings:
    """How an engine may use the device.

    `threads` is the number that one run may occupy. Engines that are built on the device are kept in the folder
    `kept_engines`, at most `kept_engines_bytes` of them; `building` is told before such a build, with the seconds that
    it may take.
    """

    threads: int = 1
    kept_engines: Optional[Path] = None
    kept_engines_bytes: int = 4 << 30
    building: Callable[[float], None] = _quietly


class Engine(Protocol):
    """A loaded artifact. `run` is called by one thread at a time and may be given more rows than one request had."""

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> Engine:
        """Load the artifact that lies at `path`, as its options say.

        Raises BundleError, or MissingToolError where the library is absent.
        """
        ...

    @classmethod
    def version(cls) -> str:
        """Return the library's version; raises MissingToolError."""
        ...

    def run(self, inputs: Arrays) -> Dict[str, np.ndarray]:
        """Return every output of the manifest by name; `inputs` are C-contiguous and fit the manifest."""
        ...

    def close(self) -> None:
        """Let go of the model's memory."""
        ...


def find(name: str) -> Type[Engine]:
    """Return the engine class called `name`; raises BundleError where this agent has none."""
    try:
        module, _, attribute = ENGINES[name].partition(":")
    except KeyError:
        known = ", ".join(ENGINES)
        raise BundleError(f"no engine is called {name!r} here (known: {known}): update the agent") from None
    return getattr(importlib.import_module(module), attribute)


def load(bundle: StoredBundle, settings: EngineSettings = EngineSettings()) -> Engine:
    """Load the first of the bundle's artifacts whose engine is installed; raises BundleError, MissingToolError."""
    missing: MissingToolError | None = None
    for artifact in bundle.manifest.artifacts:
        engine = find(artifact.engine)
        try:
            return engine.load(bundle.part(artifact.part), bundle.manifest, artifact, settings)
        except MissingToolError as error:
            missing = missing or error
    raise missing or BundleError(f"{bundle.manifest.name} holds no artifact")
