"""LiteRT (TensorFlow Lite) on the processor, through ai-edge-litert or the older tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import numpy as np

from farrier_contracts.bundle import Manifest
from farrier_contracts.errors import BundleError, MissingToolError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES, TensorSpec

from . import EngineSettings

LIBRARIES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert"),
    ("tflite_runtime.interpreter", "tflite-runtime"),
)


@dataclass(frozen=True)
class _Port:
    """One input or output: its tensor's index, and the affine quantization to apply where the dtypes differ."""

    spec: TensorSpec
    index: int
    dtype: np.dtype
    scale: float
    zero_point: int

    @property
    def converts(self) -> bool:
        return self.dtype != np.dtype(NUMPY_NAMES[self.spec.datatype])


class LiteRt:
    """One interpreter; tensors are resized only when a shape differs from the last run's."""

    def __init__(self, interpreter: Any, inputs: Sequence[_Port], outputs: Sequence[_Port]) -> None:
        self._interpreter: Any = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._shapes = {
            d["index"]: tuple(int(n) for n in d["shape"]) for d in interpreter.get_input_details()
        }

    @classmethod
    def load(cls, path: Path, manifest: Manifest, settings: EngineSettings) -> LiteRt:
        """Allocate the interpreter; inputs that the manifest declares in floats are quantized on the way in."""
        module, _ = _library()
        try:
            interpreter = module.Interpreter(model_path=str(path), num_threads=settings.threads)
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"LiteRT {cls.version()} cannot load the model: {reason}") from None
        inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
        return cls(
            interpreter, _match("input", manifest.inputs, inputs), _match("output", manifest.outputs, outputs)
        )

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        return importlib.metadata.version(_library()[1])

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Resize where needed, run, and copy the outputs out."""
        interpreter = self._interpreter
        resized = False
        for port in self._inputs:
            shape = inputs[port.spec.name].shape
            if self._shapes[port.index] != shape:
                interpreter.resize_tensor_input(port.index, shape)
                self._shapes[port.index] = shape
                resized = True
        if resized:
            self._allocate()
        for port in self._inputs:
            interpreter.set_tensor(port.index, _quantized(port, inputs[port.spec.name]))
        interpreter.reset_all_variables()  # a recurrent model's state must not leak into the next request
        interpreter.invoke()
        return {
            port.spec.name: _dequantized(port, interpreter.get_tensor(port.index)) for port in self._outputs
        }

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


def _match(kind: str, specs: Sequence[TensorSpec], details: Sequence[Mapping[str, Any]]) -> List[_Port]:
    """Pair the manifest's tensors with the model's: by name, else by dtype and shape, else by what is left.

    A model reports the shapes of some outputs only after its first run, but the last axis is right before.
    """
    left = list(details)
    found: Dict[str, Mapping[str, Any]] = {}
    for fits in (_same_name, _same_shape, _same_last_axis, _anything):
        for spec in specs:
            matching = [detail for detail in left if fits(spec, detail)]
            if spec.name not in found and len(matching) == 1:
                found[spec.name] = matching[0]
                left.remove(matching[0])
    for spec in specs:
        if spec.name not in found:
            raise BundleError(
                f"the model has no {kind} like the manifest's {spec.name!r}: build the bundle again"
            )
    if kind == "input" and left:
        raise BundleError(f"the model has an input {left[0]['name']!r} that the manifest does not declare")
    return [_port(kind, spec, found[spec.name]) for spec in specs]


def _same_name(spec: TensorSpec, detail: Mapping[str, Any]) -> bool:
    plain = detail["name"].partition(":")[0]
    return spec.name in (detail["name"], plain, plain.replace("serving_default_", "", 1))


def _same_shape(spec: TensorSpec, detail: Mapping[str, Any]) -> bool:
    shape = tuple(int(n) for n in detail["shape"])
    same_rank = len(shape) == len(spec.shape)
    return same_rank and all(want in (DYNAMIC, have) for want, have in zip(spec.shape, shape))


def _same_last_axis(spec: TensorSpec, detail: Mapping[str, Any]) -> bool:
    return bool(spec.shape) and len(detail["shape"]) > 0 and spec.shape[-1] == int(detail["shape"][-1])


def _anything(spec: TensorSpec, detail: Mapping[str, Any]) -> bool:
    return True


def _port(kind: str, spec: TensorSpec, detail: Mapping[str, Any]) -> _Port:
    scale, zero_point = detail.get("quantization") or (0.0, 0)
    port = _Port(spec, int(detail["index"]), np.dtype(detail["dtype"]), float(scale), int(zero_point))
    if port.converts and (spec.datatype not in ("FP32", "FP64") or not port.scale):
        raise BundleError(
            f"{kind} {spec.name!r} is {port.dtype} in the model but {spec.datatype} in the manifest: "
            "build the bundle again"
        )
    return port


def _quantized(port: _Port, array: np.ndarray) -> np.ndarray:
    if not port.converts:
        return array
    limits = np.iinfo(port.dtype)
    steps = np.rint(array / port.scale) + port.zero_point
    return np.clip(steps, limits.min, limits.max).astype(port.dtype)


def _dequantized(port: _Port, array: np.ndarray) -> np.ndarray:
    if not port.converts:
        return array
    real = (array.astype(np.float32) - port.zero_point) * np.float32(port.scale)
    return real.astype(NUMPY_NAMES[port.spec.datatype], copy=False)


def _library() -> Tuple[Any, str]:
    for module, distribution in LIBRARIES:
        try:
            return importlib.import_module(module), distribution
        except ImportError:
            continue
    raise MissingToolError("this bundle needs LiteRT: python -m pip install 'farrier-agent[litert]'")
