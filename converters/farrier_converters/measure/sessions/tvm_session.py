"""TVM's virtual machine on the processor."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tvm  # pyright: ignore[reportMissingImports]
from tvm import relax  # pyright: ignore[reportMissingImports]

from farrier_contracts.tensors import TensorSpec

from .rows import Arrays, arrays_in_order, by_rows

FUNCTION = "main"  # what the importer calls a graph


class TvmSession:
    """One library; it has no reference arithmetic: its integers never saturate in between."""

    version = f"tvm {tvm.__version__}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        os.environ["TVM_NUM_THREADS"] = str(threads)
        machine = relax.VirtualMachine(tvm.runtime.load_module(str(path)), tvm.cpu())
        self._function: Any = machine[FUNCTION]
        options = options or {}
        self._inputs: Sequence[str] = options["inputs"]
        self._outputs: Sequence[str] = options["outputs"]
        self._rows = frozenset(options["rows"])
        self.inputs = tuple(TensorSpec.from_dict(spec) for spec in options["specs"])

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once, or once for each row."""
        return by_rows(self._once, feeds, self._rows)

    def _once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        given = [tvm.runtime.tensor(array) for array in arrays_in_order(feeds, self._inputs)]
        results = self._function(*given)
        found = [results] if isinstance(results, tvm.runtime.Tensor) else list(results)
        return {name: result.numpy() for name, result in zip(self._outputs, found, strict=True)}
