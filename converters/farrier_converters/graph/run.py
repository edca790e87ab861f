"""Run a graph in ONNX Runtime on the host, with what its errors mean."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.tensors import NUMPY_NAMES

from ..model import Model
from .edit import reads

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt(3)
MAPPED_BYTES, HEAP_BYTES = 1 << 22, 1 << 25
THREADS = 2  # where whole networks run many rows; sums are split by row, so that their number changes no bit
QUIET = 4  # ONNX Runtime's severity "fatal": its errors arrive as exceptions anyway


@contextmanager
def large_blocks_mapped() -> Iterator[None]:
    """Have glibc map every block of `MAPPED_BYTES` on its own meanwhile, so that freed tensors leave no holes.

    Left alone, it raises that limit with each larger block that is freed, and tensors then leave holes in the heap: the
    same calibration of a face detector peaked between 157 and 209 MiB from run to run, now at 157. Mapping costs a page
    fault for each page that is touched: with a limit of 256 KiB it took a third longer, for 20 MiB less. Afterwards the
    limits are those that glibc itself ends up with. Other C libraries do without.
    """
    _limit_heap(MAPPED_BYTES, HEAP_BYTES)
    try:
        yield
    finally:
        _limit_heap(HEAP_BYTES, 2 * HEAP_BYTES)


def _limit_heap(mapped: int, kept: int) -> None:
    """Map blocks from `mapped` bytes on; keep at most `kept` free bytes at the end of the heap."""
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, mapped)
        libc.mallopt(TRIM_THRESHOLD, kept)


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


def up_to(proto: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    """Return the part of a graph that these tensors need, with them as its outputs, in this order.

    The engine would compute every node of a graph, whatever is asked for. It infers the types.
    """
    wanted, nodes = set(names), []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            wanted |= reads(node)
            nodes.append(node)
    known = {value.name: value for value in proto.graph.output}
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = proto.graph.name
    unused = {
        tensor.name for tensor in proto.graph.initializer
    } - wanted  # old graphs list constants as inputs
    part.graph.input.extend(value for value in proto.graph.input if value.name not in unused)
    part.graph.node.extend(nodes[::-1])
    part.graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in wanted)
    part.graph.output.extend(
        known.get(name) or onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names)
    )
    return part


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
