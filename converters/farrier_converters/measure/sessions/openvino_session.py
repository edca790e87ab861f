"""OpenVINO on the processor: loads ONNX files themselves, quantized ones with its own low-precision kernels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino  # pyright: ignore[reportMissingImports]

from farrier_contracts.tensors import DATATYPES, DYNAMIC, TensorSpec


class OpenVinoSession:
    """One ONNX file, compiled for this processor.

    What is float in the file stays float32: left to itself, OpenVINO computes in bfloat16 where the processor can.
    Its reference arithmetic is the quantizers in float, without the transformation to low precision.
    """

    version = f"openvino {openvino.get_version().partition('-')[0]}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            "LP_TRANSFORMS_MODE": "NO" if reference else "YES",
        }
        compiled = openvino.Core().compile_model(str(path), "CPU", settings)
        self._request = compiled.create_infer_request()
        options = options or {}
        self._ports = _named(compiled.inputs, options.get("inputs", ()))
        self._outputs = _named(compiled.outputs, options.get("outputs", ()))
        self.inputs = tuple(_spec(name, port) for name, port in self._ports.items())

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        self._request.infer({self._ports[name]: array for name, array in feeds.items()}, share_inputs=True)
        return {name: self._request.get_tensor(port).data.copy() for name, port in self._outputs.items()}


def _named(ports: Iterable[Any], wanted: Collection[str]) -> dict[str, Any]:
    """Return the ports by the model's names: OpenVINO knows a tensor by those of its copies too."""
    found: dict[str, Any] = {}
    for port in ports:
        names = [name for name in sorted(port.get_names()) if name not in found]
        found[next((name for name in names if name in wanted), names[0])] = port
    return found


def _spec(name: str, port: Any) -> TensorSpec:
    kind = np.dtype(port.get_element_type().to_dtype()).name
    shape = (d.get_length() if d.is_static else DYNAMIC for d in port.get_partial_shape())
    return TensorSpec(name, DATATYPES[kind], tuple(shape))
