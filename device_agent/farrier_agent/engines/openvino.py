"""OpenVINO on an x86 processor; it loads ONNX files, quantizers included."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError, MissingToolError

from . import EngineSettings

PRECISION = (
    "f32"  # of what is float in the file: left to itself, OpenVINO takes bfloat16 where the processor has it
)


class OpenVino:
    """One compiled model with one request."""

    def __init__(self, request: Any, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        self._request: Any = request
        self._inputs = inputs
        self._outputs = outputs

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> OpenVino:
        """Compile the model for this processor."""
        openvino = _library()
        hints = {
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": PRECISION,
        }
        try:
            compiled = openvino.Core().compile_model(str(path), "CPU", hints)
            request = compiled.create_infer_request()
        except Exception as error:  # the library's exceptions share no base class
            reason = str(error).strip().splitlines()[-1:] or ["it gave no reason"]
            raise BundleError(f"OpenVINO {cls.version()} cannot load the model: {reason[0]}") from None
        inputs = _ports("input", compiled.inputs, [spec.name for spec in manifest.inputs])
        outputs = _ports("output", compiled.outputs, [spec.name for spec in manifest.outputs])
        return cls(request, inputs, outputs)

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        return str(_library().get_version()).partition("-")[0]

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run the request, and copy the outputs out."""
        self._request.infer({self._inputs[name]: array for name, array in inputs.items()}, share_inputs=True)
        return {name: self._request.get_tensor(port).data.copy() for name, port in self._outputs.items()}

    def close(self) -> None:
        """Drop the model."""
        self._request = None


def _ports(kind: str, ports: Iterable[Any], names: List[str]) -> Dict[str, Any]:
    """Pair names with ports; a port also has the names of the tensor's copies."""
    found: Dict[str, Any] = {}
    left = list(ports)
    for name in names:
        port = next((port for port in left if name in port.get_names()), None)
        if port is None:
            raise BundleError(
                f"the model has no {kind} {name!r} as the manifest says: build the bundle again"
            )
        found[name] = port
        left.remove(port)
    if kind == "input" and left:
        raise BundleError("the model has an input that the manifest does not declare: build the bundle again")
    return found


def _library() -> Any:
    try:
        import openvino  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingToolError(
            "this bundle needs OpenVINO: python -m pip install 'farrier-agent[openvino]'"
        ) from None
    return openvino
