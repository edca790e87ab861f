"""ExecuTorch's own runtime, as an app on a phone holds it, with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import executorch.kernels.quantized  # pyright: ignore[reportMissingImports]  # noqa: F401  # registers operators
import numpy as np
import torch
from executorch.extension.pybindings import portable_lib  # pyright: ignore[reportMissingImports]
from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

from .rows import Arrays, RowSession


class ExecuTorchSession(RowSession):
    """One `.pte` file. It has no reference arithmetic: XNNPACK's integers never saturate in between."""

    version = f"executorch {version('executorch')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        self._program = Runtime.get().load_program(path)  # kept: its methods hold no reference to it
        self._method: Any = self._program.load_method("forward")
        super().__init__(options)

    def once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run on one row."""
        arrays = self._in_order(feeds)
        results = self._method.execute([torch.from_numpy(array) for array in arrays])
        return {name: result.numpy().copy() for name, result in zip(self._outputs, results, strict=True)}
