"""MNN on the processor, in full float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import MNN  # pyright: ignore[reportMissingImports]
import numpy as np
from MNN import nn  # pyright: ignore[reportMissingImports]

from farrier_contracts.tensors import TensorSpec

from .rows import Arrays, arrays_in_order, by_rows

PROCESSOR = 0  # MNN's number of its CPU back end


class MnnSession:
    """One `.mnn` file."""

    version = f"mnn {version('MNN')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        options = options or {}
        self._inputs: Sequence[str] = options["inputs"]
        self._outputs: Sequence[str] = options["outputs"]
        self._rows = frozenset(options["rows"])
        self.inputs = tuple(TensorSpec.from_dict(spec) for spec in options["specs"])
        settings = {"backend": PROCESSOR, "numThread": threads, "precision": "high"}
        self._manager = nn.create_runtime_manager((settings,))
        self._module: Any = nn.load_module_from_file(
            str(path), list(self._inputs), list(self._outputs), runtime_manager=self._manager
        )

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once, or once for each row."""
        return by_rows(self._once, feeds, self._rows)

    def _once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        layout = MNN.expr.NCHW  # of tensors of any rank: as they lie in memory
        given = [
            MNN.expr.const(array, list(array.shape), layout, _kind(array))
            for array in arrays_in_order(feeds, self._inputs)
        ]
        results = self._module.forward(given)
        found = results if isinstance(results, (tuple, list)) else (results,)
        plain = [
            result if result.data_format == layout else MNN.expr.convert(result, layout) for result in found
        ]
        return {name: np.array(result.read()) for name, result in zip(self._outputs, plain, strict=True)}


def _kind(array: np.ndarray) -> Any:
    kinds = {"float32": MNN.expr.float, "int32": MNN.expr.int, "uint8": MNN.expr.uint8, "int8": MNN.expr.int8}
    if array.dtype.name not in kinds:
        raise ValueError(f"MNN takes no inputs of type {array.dtype}")
    return kinds[array.dtype.name]
