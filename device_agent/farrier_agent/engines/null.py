"""The engine that computes nothing: zeros of the right shape."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.tensors import DYNAMIC, NUMPY_NAMES

from . import EngineSettings


class Null:
    """Answers zeros; a free first axis takes the request's rows, any other free axis is 1 long."""

    def __init__(self, manifest: Manifest) -> None:
        self._outputs = manifest.outputs

    @classmethod
    def load(cls, path: Path, manifest: Manifest, artifact: Artifact, settings: EngineSettings) -> Null:
        """Ignore the artifact."""
        return cls(manifest)

    @classmethod
    def version(cls) -> str:
        """Return the version of nothing."""
        return "0"

    def run(self, inputs: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """Return zeros."""
        rows = next((len(array) for array in inputs.values() if array.ndim), 1)
        return {
            spec.name: np.zeros(
                [(rows if axis == 0 else 1) if d == DYNAMIC else d for axis, d in enumerate(spec.shape)],
                NUMPY_NAMES[spec.datatype],
            )
            for spec in self._outputs
        }

    def close(self) -> None:
        """Hold nothing."""
