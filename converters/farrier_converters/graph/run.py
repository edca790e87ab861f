"""Run a graph in ONNX Runtime on the host, with what its errors mean."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import NUMPY_NAMES

from ..model import Model

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MMAP_THRESHOLD = -3  # of mallopt(3)
MAPPED_BYTES = 1 << 18
QUIET = 4  # ONNX Runtime's severity "fatal": its errors arrive as exceptions anyway


@cache
def map_large_blocks() -> None:
    """Have glibc map every block of `MAPPED_BYTES` on its own, for the rest of the process.

    Left alone, it raises that limit with each larger block that is freed, and tensors then leave holes in the heap: the
    same calibration of a face detector peaked between 160 and 250 MiB from run to run, now at 144. Other C libraries
    do without.
    """
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, MAPPED_BYTES)


def session(proto: onnx.ModelProto, *, threads: int = 1, optimize: bool = True) -> InferenceSession:
    """Open a graph on the processor, without an arena, so that memory is given back between batches."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = QUIET
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def with_outputs(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return a copy of a graph that also puts out these float32 tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {value.name for value in proto.graph.output}
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in known
    )
    return copy


def runtime_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions with which ONNX Runtime refuses a graph or its inputs."""
    state = import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    return (
        *(e for e in vars(state).values() if isinstance(e, type) and issubclass(e, Exception)),
        ValueError,
    )


def once(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[Any]:
    """Run a graph one time and return its outputs; raises InputError."""
    try:
        return list(session(proto).run(None, feeds))
    except runtime_errors() as error:
        raise InputError(f"ONNX Runtime cannot run the model: {brief(error)}") from None


def try_once(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[Any] | None:
    """Run a graph one time; None when ONNX Runtime refuses."""
    try:
        return once(proto, feeds)
    except InputError:
        return None


def same(left: Sequence[Any], right: Sequence[Any], *, tolerance: float) -> bool:
    """Say whether two lists of outputs agree: |a - b| <= tolerance * (1 + |b|), NaN where the other has it."""
    return len(left) == len(right) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and (
            np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True)
            if a.dtype.kind in "fc"
            else np.array_equal(a, b)
        )
        for a, b in zip(map(np.asarray, left), map(np.asarray, right), strict=True)
    )


def sample(model: Model, *, seed: int = 0) -> dict[str, np.ndarray]:
    """Make one input: standard normal floats, zeros and ones otherwise, free dimensions 1."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for spec in model.inputs:
        shape = [max(size, 1) for size in spec.shape]
        dtype = np.dtype(object if spec.datatype == "BYTES" else NUMPY_NAMES[spec.datatype])
        values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
        feeds[spec.name] = np.asarray(values).astype(dtype)
    return feeds


def brief(error: Exception) -> str:
    """Return the first sentence of an error of ONNX Runtime, without its code numbers."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.rpartition(" : ")[2][:300]
