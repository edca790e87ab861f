"""What benchmarks of TFLite files share: our INT8 of a network, and LiteRT with one set of kernels or another."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from farrier_contracts.targets import ARITHMETICS, INTEGERS, Arithmetic
from farrier_converters import passes
from farrier_converters.compilers.tflite import lower_model
from farrier_converters.model import Model
from farrier_converters.tflite.write import write

Feeds = dict[str, np.ndarray]
XNNPACK = ARITHMETICS["xnnpack"]
WHOLE = ARITHMETICS["integer-npu"]
KERNELS = {
    "xnnpack": OpResolverType.AUTO,
    "builtin": OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    "reference": OpResolverType.BUILTIN_REF,
}


def quantized(model: Model, calibration: Sequence[Feeds], arithmetic: Arithmetic = XNNPACK) -> Model:
    """Return the INT8 graph, everything at its default."""
    context = passes.Context(arithmetic=arithmetic, calibration=lambda: iter(calibration))
    for name in ("clean", "fuse", "int8"):
        step = passes.get(name)
        model = step.run(model, step.options(), context)
    return model


def file_of(model: Model, arithmetic: Arithmetic = XNNPACK) -> tuple[bytes, dict[str, Any]]:
    """Return the bytes of a TFLite file and its options."""
    lowered = lower_model(model, integer_ends=arithmetic.quantizers == INTEGERS)
    return write(lowered.file), lowered.options


def engine(
    content: bytes, options: Mapping[str, Any], outputs: Sequence[str], *, kernels: str
) -> Callable[[Feeds], list[np.ndarray]]:
    """Open a file with float ends; the returned function answers in the order of `outputs`, as the model has them."""
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=KERNELS[kernels]
    )
    interpreter.allocate_tensors()
    layouts = options.get("layouts", {})

    def run(feeds: Feeds) -> list[np.ndarray]:
        given = interpreter.get_input_details()
        arrays = {
            d["index"]: feeds[d["name"]].transpose(layouts.get(d["name"], range(feeds[d["name"]].ndim)))
            for d in given
        }
        if any(tuple(d["shape"]) != arrays[d["index"]].shape for d in given):
            for index, array in arrays.items():
                interpreter.resize_tensor_input(index, array.shape)
            interpreter.allocate_tensors()
        for index, array in arrays.items():
            interpreter.set_tensor(index, array)
        interpreter.invoke()
        found = {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}
        return [
            found[name].transpose(np.argsort(layouts.get(name, range(found[name].ndim)))) for name in outputs
        ]

    return run


def milliseconds(files: Mapping[str, bytes], *, rounds: int, calls: int) -> dict[str, float]:
    """Return the lower quartile over rounds of each file's time per call in XNNPACK, one thread; files take turns."""
    interpreters = {name: _ready(content) for name, content in files.items()}
    times: dict[str, list[float]] = {name: [] for name in files}
    for _ in range(rounds):
        for name, interpreter in interpreters.items():
            start = time.perf_counter()
            for _ in range(calls):
                interpreter.invoke()
            times[name].append((time.perf_counter() - start) / calls * 1e3)
    return {name: float(np.quantile(found, 0.25)) for name, found in times.items()}


def _ready(content: bytes) -> Interpreter:
    """Open a file, give it random inputs, and run it until it is warm."""
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    rng = np.random.default_rng(0)
    for detail in interpreter.get_input_details():
        kind = np.dtype(detail["dtype"])
        values = rng.normal(size=detail["shape"]) * (1 if kind.kind == "f" else 40)
        interpreter.set_tensor(detail["index"], values.astype(kind))
    for _ in range(5):
        interpreter.invoke()
    return interpreter
