"""Run a built engine: shapes, buffers on the GPU, and the two ways in which TensorRT names tensors.

Source: NVIDIA, "TensorRT Python API", ICudaEngine and IExecutionContext: tensors by name since 8.5, bindings by number
until 9.
"""

from __future__ import annotations

import math
from typing import Any, Dict, List, Mapping, Protocol, Tuple

import numpy as np

from farrier_contracts.bundle import Manifest
from farrier_contracts.errors import BundleError
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES, TensorSpec

from .cuda import Cuda
from .library import logger

AGAIN = "build the bundle again"
Shape = Tuple[int, ...]


class UnreadablePlanError(ValueError):
    """The bytes are no engine for this library and GPU."""


class Tensors(Protocol):
    """Inputs and outputs of an execution context, whichever way the release names them."""

    inputs: List[str]
    outputs: List[str]

    def dtype(self, name: str) -> np.dtype:
        """Return the type in which the engine holds a tensor."""
        ...

    def set_shape(self, name: str, shape: Shape) -> bool:
        """Say which shape an input has; False where the engine was not built for it."""
        ...

    def shape(self, name: str) -> Shape:
        """Return an output's shape for the inputs' shapes, -1 where that hangs on values."""
        ...

    def execute(self, addresses: Mapping[str, int], stream: int) -> bool:
        """Start the engine on buffers; False where it could not."""
        ...


class Session:
    """An engine with one context, one stream, and buffers that grow as requests do."""

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes) -> None:
        """Load the engine; raises UnreadablePlanError."""
        self._cuda = cuda
        self._logger = logger(trt, trt.Logger.ERROR)  # the library keeps a reference, not a copy
        self._runtime = trt.Runtime(self._logger)
        engine = self._runtime.deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise UnreadablePlanError("its engine is not for this library and GPU")
        by_name = hasattr(engine, "num_io_tensors")
        self._tensors: Tensors = (_Named if by_name else _Numbered)(trt, engine, context)
        self._stream = cuda.stream()
        self._buffers: Dict[str, Tuple[int, int]] = {}  # address and bytes
        self._wanted: List[TensorSpec] = []

    def check(self, manifest: Manifest) -> None:
        """Raise BundleError where the engine's tensors are not the manifest's."""
        for kind, specs, names in (
            ("input", manifest.inputs, set(self._tensors.inputs)),
            ("output", manifest.outputs, set(self._tensors.outputs)),
        ):
            declared = {spec.name for spec in specs}
            wrong = declared ^ names if kind == "input" else declared - names
            if wrong:
                raise BundleError(
                    f"the manifest's {kind}s and the engine's disagree about {sorted(wrong)[0]!r}: {AGAIN}"
                )
        self._wanted = list(manifest.outputs)

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run once; raises ValueError for shapes that the engine was not built for, CudaError."""
        tensors = self._tensors
        given = {name: self._given(name, inputs[name]) for name in tensors.inputs}
        for name, array in given.items():
            if not tensors.set_shape(name, array.shape):
                raise ValueError(f"the engine was not built for the shape {list(array.shape)} of {name}")
        for name, array in given.items():
            self._cuda.upload(self._buffer(name, array.nbytes), array, self._stream)
        results = {name: self._empty(name) for name in tensors.outputs}
        for name, array in results.items():
            self._buffer(name, array.nbytes)
        addresses = {name: self._buffers[name][0] for name in (*given, *results)}
        if not tensors.execute(addresses, self._stream):
            raise RuntimeError("TensorRT could not start the engine")
        for spec in self._wanted:
            self._cuda.download(results[spec.name], addresses[spec.name], self._stream)
        self._cuda.wait(self._stream)
        return {
            spec.name: results[spec.name].astype(NUMPY_NAMES[spec.datatype], copy=False)
            for spec in self._wanted
        }

    def close(self) -> None:
        """Free the buffers and the stream."""
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        self._buffers = {}
        if self._stream:
            self._cuda.end_stream(self._stream)
            self._stream = 0

    def _given(self, name: str, array: np.ndarray) -> np.ndarray:
        """Return an input in the engine's type: releases before 10 compute 64-bit integers in 32."""
        return np.ascontiguousarray(array.astype(self._tensors.dtype(name), copy=False)).reshape(array.shape)

    def _empty(self, name: str) -> np.ndarray:
        shape = self._tensors.shape(name)
        if DYNAMIC in shape:
            raise ValueError(f"the shape of {name} hangs on the values of the inputs")
        return np.empty(shape, self._tensors.dtype(name))

    def _buffer(self, name: str, size: int) -> int:
        """Return the address of at least so many bytes for a tensor."""
        address, room = self._buffers.get(name, (0, 0))
        if not address or room < size:
            if address:
                self._cuda.free(address)
                del self._buffers[name]
            grown = 1 << math.ceil(math.log2(max(size, 256)))
            self._buffers[name] = address, _ = self._cuda.allocate(grown), grown
        return address


class _Named:
    """Tensors by name, since 8.5."""

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._trt, self._engine, self._context = trt, engine, context
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inward = [engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names]
        self.inputs = [name for name, is_input in zip(names, inward) if is_input]
        self.outputs = [name for name, is_input in zip(names, inward) if not is_input]

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))

    def set_shape(self, name: str, shape: Shape) -> bool:
        return bool(self._context.set_input_shape(name, shape))

    def shape(self, name: str) -> Shape:
        return tuple(self._context.get_tensor_shape(name))

    def execute(self, addresses: Mapping[str, int], stream: int) -> bool:
        for name, address in addresses.items():
            self._context.set_tensor_address(name, address)
        return bool(self._context.execute_async_v3(stream))


class _Numbered:
    """Tensors by number, until 9."""

    def __init__(self, trt: Any, engine: Any, context: Any) -> None:
        self._trt, self._engine, self._context = trt, engine, context
        self._numbers = {engine.get_binding_name(i): i for i in range(engine.num_bindings)}
        self.inputs = [name for name, i in self._numbers.items() if engine.binding_is_input(i)]
        self.outputs = [name for name in self._numbers if name not in self.inputs]

    def dtype(self, name: str) -> np.dtype:
        return np.dtype(self._trt.nptype(self._engine.get_binding_dtype(self._numbers[name])))

    def set_shape(self, name: str, shape: Shape) -> bool:
        number = self._numbers[name]
        if DYNAMIC not in tuple(self._engine.get_binding_shape(number)):
            return tuple(self._engine.get_binding_shape(number)) == shape
        return bool(self._context.set_binding_shape(number, shape))

    def shape(self, name: str) -> Shape:
        return tuple(self._context.get_binding_shape(self._numbers[name]))

    def execute(self, addresses: Mapping[str, int], stream: int) -> bool:
        ordered = [addresses[name] for name in self._numbers]
        return bool(self._context.execute_async_v2(ordered, stream))
