"""ExecuTorch: `.pte` programs with XNNPACK's kernels, in its Python runtime."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any, Dict, List, Mapping

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError, MissingToolError

from . import EngineSettings
from .one_row import Order

METHOD = "forward"


class ExecuTorch:
    """One method of one program."""

    def __init__(self, program: Any, torch: Any, order: Order) -> None:
        self._program: Any = program  # kept: its method holds no reference to it
        self._method: Any = program.load_method(METHOD)
        self._torch = torch
        self._order = order

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> ExecuTorch:
        """Load the program; its threads are shared by the whole process."""
        order = Order.read(artifact, manifest)
        runtime, torch, threads = _library()
        threads(settings.threads)
        try:
            return cls(runtime.get().load_program(path), torch, order)
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise BundleError(f"ExecuTorch {cls.version()} cannot load the model: {reason}") from None

    @classmethod
    def version(cls) -> str:
        """Return the library's version."""
        _library()
        return importlib.metadata.version("executorch")

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Run the method, for each row where there are several."""
        return self._order.run(self._once, inputs)

    def close(self) -> None:
        """Drop the program."""
        self._method = self._program = None

    def _once(self, arrays: List[np.ndarray]) -> List[np.ndarray]:
        results = self._method.execute([self._torch.from_numpy(array) for array in arrays])
        return [result.numpy() for result in results]


def _library() -> Any:
    try:
        import executorch.kernels.quantized  # pyright: ignore[reportMissingImports]  # noqa: F401  # registers operators
        import torch
        from executorch.extension.pybindings import portable_lib  # pyright: ignore[reportMissingImports]
        from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingToolError(
            "this bundle needs ExecuTorch: python -m pip install 'farrier-agent[executorch]'"
        ) from None
    return Runtime, torch, portable_lib._unsafe_reset_threadpool
