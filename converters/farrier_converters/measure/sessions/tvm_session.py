"""TVM's virtual machine on the processor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tvm  # pyright: ignore[reportMissingImports]
from tvm import relax  # pyright: ignore[reportMissingImports]

from .rows import Arrays, RowSession

FUNCTION = "main"  # what the importer calls a graph


class TvmSession(RowSession):
    """One library; it has no reference arithmetic: its integers never saturate in between."""

    version = f"tvm {tvm.__version__}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        self._function: Any = machine[FUNCTION]
        super().__init__(options)

    def once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run on one row."""
        given = [tvm.runtime.tensor(array) for array in self._in_order(feeds)]
        results = self._function(*given)
        found = [results] if isinstance(results, tvm.runtime.Tensor) else list(results)
        return {name: result.numpy() for name, result in zip(self._outputs, found, strict=True)}
