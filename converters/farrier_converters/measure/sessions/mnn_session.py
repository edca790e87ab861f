"""MNN on the processor, in full float32."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import MNN  # pyright: ignore[reportMissingImports]
import numpy as np
from MNN import nn  # pyright: ignore[reportMissingImports]

from .rows import Arrays, RowSession

PROCESSOR = 0  # MNN's number of its CPU back end


class MnnSession(RowSession):
    """One `.mnn` file."""

    version = f"mnn {version('MNN')}"

    def __init__(
        self, path: Path, *, threads: int, reference: bool = False, options: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(options)
        settings = {"backend": PROCESSOR, "numThread": threads, "precision": "high"}
        self._manager = nn.create_runtime_manager((settings,))
        self._module: Any = nn.load_module_from_file(
            str(path), list(self._inputs), list(self._outputs), runtime_manager=self._manager
        )

    def once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run on one row."""
        layout = MNN.expr.NCHW  # of tensors of any rank: as they lie in memory
        given = [
            MNN.expr.const(array, list(array.shape), layout, _kind(array)) for array in self._in_order(feeds)
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
