"""ONNX Runtime on the processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Mapping

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError, MissingToolError

from . import EngineSettings

_LOG_FATAL_ONLY = 4  # errors come as exceptions; the library's own stderr lines would say them twice


class OnnxRuntime:
    """One inference session."""

    def __init__(self, session: Any, outputs: list[str]) -> None:
        self._session: Any = session
        self._outputs = outputs

    @classmethod
    def load(
        cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings
    ) -> OnnxRuntime:
        """Build the session; threads never spin, since a device has other work to do."""
        ort = _library()
        options = ort.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _LOG_FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the library's exceptions share no base class
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"ONNX Runtime {ort.__version__} cannot load the model: {reason}") from None
        _check_names("input", {i.name for i in session.get_inputs()}, {i.name for i in manifest.inputs})
        _check_names("output", {o.name for o in session.get_outputs()}, {o.name for o in manifest.outputs})
        return cls(session, [output.name for output in manifest.outputs])

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        return _library().__version__

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run the session."""
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs)))

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _check_names(kind: str, model: set[str], manifest: set[str]) -> None:
    # every input must be declared; outputs that the manifest leaves out are simply not computed
    wrong = manifest ^ model if kind == "input" else manifest - model
    if wrong:
        raise BundleError(
            f"the manifest's {kind}s and the model's disagree about {sorted(wrong)[0]!r}: build the bundle again"
        )


def _library() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MissingToolError(
            "this bundle needs ONNX Runtime: python -m pip install 'farrier-agent[onnx]'"
        ) from None
    return onnxruntime
