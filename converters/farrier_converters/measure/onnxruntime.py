"""ONNX Runtime on the processor, set up as on a device: no spinning threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from farrier_contracts.tensors import DATATYPES, DYNAMIC, TensorSpec

FATAL = 4  # ONNX Runtime's log level: its errors reach us as exceptions


class OnnxRuntimeSession:
    """One ONNX file in an inference session.

    Its reference arithmetic is the graph as it stands: without ONNX Runtime's fusions, what lies between DQ and Q
    is float32, which holds every 8-bit integer and, up to rounding, the sums of their products.
    """

    version = f"onnxruntime {onnxruntime.__version__}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        setup = onnxruntime.SessionOptions()
        setup.intra_op_num_threads = threads
        setup.inter_op_num_threads = 1
        setup.log_severity_level = FATAL
        setup.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if reference:
            setup.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(path, setup, providers=["CPUExecutionProvider"])
        self.inputs = tuple(_spec(value) for value in self._session.get_inputs())
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        outputs = self._session.run(self._names, dict(feeds))
        return {name: np.asarray(output) for name, output in zip(self._names, outputs, strict=True)}


def _spec(value: onnxruntime.NodeArg) -> TensorSpec:
    kind = str(value.type).removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    shape = tuple(d if isinstance(d, int) and d > 0 else DYNAMIC for d in value.shape)
    return TensorSpec(value.name, DATATYPES.get(dtype, "BYTES"), shape)
