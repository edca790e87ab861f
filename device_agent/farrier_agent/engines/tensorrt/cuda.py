"""The few calls of the CUDA runtime that an engine needs, through ctypes: no package to install, no compiler.

Source: NVIDIA, "CUDA Runtime API", sections device, memory and stream management; the constants are of cudaMemcpyKind
and cudaDeviceAttr, and the same in every release since CUDA 5.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
from typing import Any

import numpy as np

from farrier_contracts.errors import MissingToolError

LIBRARY_VARIABLE = "FARRIER_CUDART_LIBRARY"  # another path or name of the runtime
NAMES = ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2")
TO_DEVICE, TO_HOST = 1, 2
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76
NAME_BYTES = 256  # the device's name is the first field of cudaDeviceProp ...
PROPERTIES_BYTES = 1 << 14  # ... which has some 700 to 1,100 bytes


class CudaError(RuntimeError):
    """A call of the CUDA runtime failed."""


class Cuda:
    """The runtime, on the device that it chose; raises MissingToolError where it is absent."""

    def __init__(self) -> None:
        self._library = _load()
        self._library.cudaGetErrorString.restype = ctypes.c_char_p

    def device(self) -> str:
        """Return the GPU's name and compute capability, such as "Orin sm_87": an engine fits no other."""
        index = ctypes.c_int()
        self._call("cudaGetDevice", ctypes.byref(index))
        properties = ctypes.create_string_buffer(PROPERTIES_BYTES)
        self._call("cudaGetDeviceProperties", properties, index)
        name = properties.raw[:NAME_BYTES].partition(b"\0")[0].decode(errors="replace")
        major, minor = (self._attribute(kind, index) for kind in (CAPABILITY_MAJOR, CAPABILITY_MINOR))
        return f"{name} sm_{major}{minor}"

    def stream(self) -> int:
        """Make a queue of work and return its handle."""
        handle = ctypes.c_void_p()
        self._call("cudaStreamCreate", ctypes.byref(handle))
        return handle.value or 0

    def end_stream(self, stream: int) -> None:
        """Free a queue."""
        self._call("cudaStreamDestroy", ctypes.c_void_p(stream))

    def wait(self, stream: int) -> None:
        """Return when all work in a queue is done."""
        self._call("cudaStreamSynchronize", ctypes.c_void_p(stream))

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes on the GPU."""
        pointer = ctypes.c_void_p()
        self._call("cudaMalloc", ctypes.byref(pointer), ctypes.c_size_t(max(size, 1)))
        return pointer.value or 0

    def free(self, address: int) -> None:
        """Give memory on the GPU back."""
        self._call("cudaFree", ctypes.c_void_p(address))

    def upload(self, address: int, array: np.ndarray, stream: int) -> None:
        """Copy a C-contiguous array to the GPU, in a queue's order; it has to live until the queue is done."""
        self._copy(address, array.ctypes.data, array.nbytes, TO_DEVICE, stream)

    def download(self, array: np.ndarray, address: int, stream: int) -> None:
        """Fill a C-contiguous array from the GPU, in a queue's order."""
        self._copy(array.ctypes.data, address, array.nbytes, TO_HOST, stream)

    def _copy(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        if size:
            self._call(
                "cudaMemcpyAsync",
                ctypes.c_void_p(to),
                ctypes.c_void_p(source),
                ctypes.c_size_t(size),
                ctypes.c_int(kind),
                ctypes.c_void_p(stream),
            )

    def _attribute(self, kind: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self._call("cudaDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(kind), device)
        return value.value

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._library, name)(*arguments)
        if code:
            text = self._library.cudaGetErrorString(code)
            raise CudaError(f"{name} failed: {text.decode(errors='replace') if text else code}")


def _load() -> Any:
    chosen = os.environ.get(LIBRARY_VARIABLE)
    found = ctypes.util.find_library("cudart")
    for name in (chosen,) if chosen else (*NAMES, found):
        if not name:
            continue
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise MissingToolError(
        f"this bundle needs the CUDA runtime, and {chosen or NAMES[0]} is not there: "
        "install JetPack's nvidia-cuda, and run ldconfig"
    )
