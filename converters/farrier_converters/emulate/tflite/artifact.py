"""A TFLite artifact of a model, emulated: arrays come and go as the model has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farrier_contracts.errors import InputError

from ...tflite.ends import End
from ...tflite.file import Tensor, TfliteFile
from .call import quantum
from .run import run


@dataclass(frozen=True)
class Artifact:
    """`options` are those of `compilers.Compiled`: axes in another order, and ends held as integers."""

    file: TfliteFile
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the outputs by name, as an engine with TFLite's reference kernels would; raises InputError."""
        tensors = [self.file.tensors[index] for index in self.file.inputs]
        missing = [tensor.name for tensor in tensors if tensor.name not in feeds]
        if missing:
            raise InputError(f"no array for the input {missing[0]!r}")
        found = run(self.file, {t.name: self._end(t).stored(feeds[t.name]) for t in tensors})
        outputs = [self.file.tensors[index] for index in self.file.outputs]
        return {tensor.name: self._end(tensor).given(found[tensor.name]) for tensor in outputs}

    def _end(self, tensor: Tensor) -> End:
        scale = quantum(tensor) if tensor.scales.size else None
        return End.of(tensor.name, tensor.dtype, scale, self.options)
