"""Engines whose artifacts take one row and know inputs by position: names, and batches fed row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, FrozenSet, List, Mapping, Sequence, Tuple

import numpy as np

from farrier_contracts.bundle import Artifact, Manifest
from farrier_contracts.errors import BundleError

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Order:
    """The artifact's order of inputs and outputs, and the inputs that are given one row at a time."""

    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    rows: FrozenSet[str]

    @staticmethod
    def read(artifact: Artifact, manifest: Manifest) -> Order:
        """Check the artifact's options against the manifest; raises BundleError."""
        there = {
            "inputs": {spec.name for spec in manifest.inputs},
            "outputs": {spec.name for spec in manifest.outputs},
        }
        found: Dict[str, Tuple[str, ...]] = {}
        for key, names in there.items():
            value = artifact.options.get(key)
            if not isinstance(value, list) or sorted(map(str, value)) != sorted(names):
                raise BundleError(
                    f"the artifact's {key} are not those of the manifest: build the bundle again"
                )
            found[key] = tuple(value)
        rows = artifact.options.get("rows", [])
        if not isinstance(rows, list) or not there["inputs"].issuperset(map(str, rows)):
            raise BundleError("the artifact's rows are not inputs of the manifest: build the bundle again")
        return Order(found["inputs"], found["outputs"], frozenset(rows))

    def run(self, once: Callable[[List[np.ndarray]], Sequence[Any]], feeds: Arrays) -> Dict[str, np.ndarray]:
        """Call `once` with the inputs in order, for each row where there are several, and name the results."""
        counts = {len(feeds[name]) for name in self.rows}
        if counts <= {1}:
            return self._named(once, feeds)
        if len(counts) > 1 or counts == {0}:
            raise ValueError(f"inputs of {sorted(counts)} rows cannot be given row by row")
        answers = [
            self._named(
                once,
                {name: array[row : row + 1] if name in self.rows else array for name, array in feeds.items()},
            )
            for row in range(counts.pop())
        ]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in self.outputs}

    def _named(
        self, once: Callable[[List[np.ndarray]], Sequence[Any]], feeds: Arrays
    ) -> Dict[str, np.ndarray]:
        results = once([np.ascontiguousarray(feeds[name]) for name in self.inputs])
        return {name: np.array(result) for name, result in zip(self.outputs, results)}
