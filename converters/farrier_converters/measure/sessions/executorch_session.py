"""ExecuTorch's own runtime, as an app on a phone holds it, with XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import executorch.kernels.quantized  # pyright: ignore[reportMissingImports]  # noqa: F401  # registers operators
import numpy as np
import torch
from executorch.extension.pybindings import portable_lib  # pyright: ignore[reportMissingImports]
from executorch.runtime import Runtime  # pyright: ignore[reportMissingImports]

from farrier_contracts.tensors import TensorSpec

from .rows import Arrays, arrays_in_order, by_rows


class ExecuTorchSession:
    """One `.pte` file. It has no reference arithmetic: XNNPACK's integers never saturate in between."""

    version = f"executorch {version('executorch')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        portable_lib._unsafe_reset_threadpool(threads)
        self._program = Runtime.get().load_program(path)  # kept: its methods hold no reference to it
        self._method: Any = self._program.load_method("forward")
        options = options or {}
        self._inputs: Sequence[str] = options["inputs"]
        self._outputs: Sequence[str] = options["outputs"]
        self._rows = frozenset(options["rows"])
        self.inputs = tuple(TensorSpec.from_dict(spec) for spec in options["specs"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once, or once for each row."""
        return by_rows(self._once, feeds, self._rows)

    def _once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        arrays = arrays_in_order(feeds, self._inputs)
        results = self._method.execute([torch.from_numpy(array) for array in arrays])
        return {name: result.numpy().copy() for name, result in zip(self._outputs, results, strict=True)}
