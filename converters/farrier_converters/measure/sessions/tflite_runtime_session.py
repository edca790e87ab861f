"""The last stand-alone release of TensorFlow Lite's runtime, which many devices still run."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tflite_runtime.interpreter import (  # pyright: ignore[reportMissingImports]
    Interpreter,
    OpResolverType,
)

from ..interpreter import InterpreterSession


class TfliteRuntimeSession(InterpreterSession):
    """One TFLite file; its reference arithmetic is the runtime's reference kernels."""

    version = f"tflite-runtime {version('tflite-runtime')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        super().__init__(
            Interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=kernels),
            options or {},
        )
