"""How a file holds the inputs and outputs of a model: in another order of axes, or as integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class End:
    """One input or output. `layout` is the order of the model's axes in the file; plain numbers have no scale."""

    dtype: str  # in the file
    layout: tuple[int, ...] | None = None
    scale: float | None = None
    zero_point: int = 0

    @classmethod
    def of(cls, name: str, dtype: str, quantum: tuple[float, int] | None, options: Mapping[str, Any]) -> End:
        """Read an artifact's options (see `compilers.Compiled`) for a tensor with this scale and zero point."""
        layout = options.get("layouts", {}).get(name)
        order = None if layout is None else tuple(layout)
        if name not in options.get("quantized", ()) or quantum is None:
            return cls(dtype, order)
        return cls(dtype, order, *quantum)

    def stored(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the model as the file holds it."""
        if self.layout is not None:
            array = array.transpose(self.layout)
        if self.scale is None:
            return array
        limits = np.iinfo(self.dtype)
        quanta = np.rint(array / np.float32(self.scale)) + self.zero_point
        return np.clip(quanta, limits.min, limits.max).astype(self.dtype)

    def given(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the file as the model has it."""
        if self.scale is not None:
            array = (array.astype(np.float32) - self.zero_point) * np.float32(self.scale)
        return array if self.layout is None else array.transpose(np.argsort(self.layout))
