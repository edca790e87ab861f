"""The compilers Farrier knows: each turns an optimized graph into the file that one kind of engine loads.

A new one is one file with a class, and one line here. Targets name compilers; see `farrier_contracts.targets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from farrier_contracts.errors import UsageError
from farrier_contracts.targets import Toolchain

from ..model import Model

COMPILERS: dict[str, str] = {
    "edgetpu": "farrier_converters.compilers.edgetpu:EdgeTpuCompiler",
    "null": "farrier_converters.compilers.null:NullCompiler",
    "onnx": "farrier_converters.compilers.onnx:OnnxCompiler",
    "coreml": "farrier_converters.compilers.coreml:CoreMlCompiler",
    "executorch": "farrier_converters.compilers.executorch:ExecuTorchCompiler",
    "iree": "farrier_converters.compilers.iree:IreeCompiler",
    "mnn": "farrier_converters.compilers.mnn:MnnCompiler",
    "openvino": "farrier_converters.compilers.openvino:OpenVinoCompiler",
    "ort": "farrier_converters.compilers.ort_format:OrtCompiler",
    "stablehlo": "farrier_converters.compilers.stablehlo:StableHloCompiler",
    "tensorrt": "farrier_converters.compilers.tensorrt:TensorRtCompiler",
    "tflite": "farrier_converters.compilers.tflite:TfliteCompiler",
    "torch-export": "farrier_converters.compilers.torch_export:TorchExportCompiler",
    "tvm": "farrier_converters.compilers.tvm:TvmCompiler",
    "vela": "farrier_converters.compilers.vela:VelaCompiler",
}


@dataclass(frozen=True)
class Compiled:
    """An artifact, and what an engine must know besides the file; a bundle's manifest holds these options too.

    `layouts` among them maps an input or output to the order in which the file holds its axes: the file's tensor is
    the model's, transposed by it. A tensor that is not in it is held as the model has it. `quantized` lists the inputs
    and outputs that the file holds as integers, with its own scale, where the model has floats. `runs` is the file that
    the toolchain's stand-in runs, where it cannot run the artifact itself. `notes` says what the compiler left to a
    slower unit, a sentence each.
    """

    path: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    runs: Path | None = None
    notes: tuple[str, ...] = ()


class Compiler(Protocol):
    """Makes artifacts."""

    def compile(self, model: Model, toolchain: Toolchain, folder: Path) -> Compiled:
        """Write the artifact into `folder`, which exists. Raises InputError, MissingToolError."""
        ...


def get(name: str) -> Compiler:
    """Return the compiler called `name`; raises UsageError."""
    try:
        module, _, constant = COMPILERS[name].partition(":")
    except KeyError:
        raise UsageError(f"unknown compiler {name!r}; choose one of: {', '.join(COMPILERS)}") from None
    return getattr(import_module(module), constant)()
