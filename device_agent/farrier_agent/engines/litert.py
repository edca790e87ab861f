"""LiteRT (TensorFlow Lite) on the processor, through ai-edge-litert or the older tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError, MissingToolError

from . import EngineSettings
from .ports import Held, Port, match

LIBRARIES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)


class LiteRt:
    """One interpreter; tensors are resized only when a shape differs from the last run's."""

    def __init__(self, interpreter: Any, inputs: Sequence[Port], outputs: Sequence[Port]) -> None:
        self._interpreter: Any = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._shapes = {
            d["index"]: tuple(int(n) for n in d["shape"]) for d in interpreter.get_input_details()
        }

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> LiteRt:
        """Allocate the interpreter.

        Tensors that the manifest declares in floats and the file in integers are converted on the way, and those in
        the artifact's option `layouts` are transposed.
        """
        held = Held.read(artifact.options, (*manifest.inputs, *manifest.outputs))
        module, _ = _library()
        delegates = cls.delegates(module)
        try:
            interpreter = module.Interpreter(
                model_path=str(path), num_threads=settings.threads, experimental_delegates=delegates
            )
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"LiteRT {cls.version()} cannot load the model: {reason}") from None
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return cls(
            interpreter,
            match("input", manifest.inputs, inputs, held),
            match("output", manifest.outputs, outputs, held),
        )

    @classmethod
    def delegates(cls, module: Any) -> List[Any]:
        """Return what runs operators in place of the processor: here nothing."""
        return []

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        return importlib.metadata.version(_library()[1])

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Resize where needed, run, and copy the outputs out."""
        interpreter = self._interpreter
        arrays = [port.stored(inputs[port.spec.name]) for port in self._inputs]
        resized = False
        for port, array in zip(self._inputs, arrays):
            if self._shapes[port.index] != array.shape:
                interpreter.resize_tensor_input(port.index, array.shape)
                self._shapes[port.index] = array.shape
                resized = True
        if resized:
            self._allocate()
        for port, array in zip(self._inputs, arrays):
            interpreter.set_tensor(port.index, array)
        interpreter.reset_all_variables()  # a recurrent model's state must not leak into the next request
        interpreter.invoke()
        return {port.spec.name: port.given(interpreter.get_tensor(port.index)) for port in self._outputs}

    def close(self) -> None:
        """Drop the interpreter."""
        self._interpreter = None

    def _allocate(self) -> None:
        try:
            self._interpreter.allocate_tensors()
        except Exception:
            # a model may refuse a shape; forget it, so that the next run sets a good one again
            self._shapes = dict.fromkeys(self._shapes, ())
            raise


def _library() -> Tuple[Any, str]:
    for module, distribution in LIBRARIES:
        try:
            return importlib.import_module(module), distribution
        except ImportError:
            continue
    raise MissingToolError("this bundle needs LiteRT: python -m pip install 'farrier-agent[litert]'")
