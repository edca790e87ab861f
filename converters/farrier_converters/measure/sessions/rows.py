"""Artifacts that take one row: a batch is fed row by row, and the answers are put together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from farrier_contracts.tensors import TensorSpec

Arrays = Mapping[str, np.ndarray]


class RowSession(ABC):
    """What sessions of such artifacts share; the artifact's options name inputs, outputs and those with rows."""

    def __init__(self, options: Mapping[str, Any] | None) -> None:
        options = options or {}
        self._inputs: Sequence[str] = options["inputs"]
        self._outputs: Sequence[str] = options["outputs"]
        self._rows = frozenset(options["rows"])
        self.inputs = tuple(TensorSpec.from_dict(spec) for spec in options["specs"])

    @abstractmethod
    def once(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run on one row."""

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Run once, or once for each row; raises ValueError where inputs hold different numbers of rows."""
        counts = {len(feeds[name]) for name in self._rows}
        if counts <= {1}:
            return self.once(feeds)
        if len(counts) > 1 or counts == {0}:
            raise ValueError(f"inputs of {sorted(counts)} rows cannot be fed row by row")
        answers = [
            self.once(
                {name: array[row : row + 1] if name in self._rows else array for name, array in feeds.items()}
            )
            for row in range(counts.pop())
        ]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}

    def _in_order(self, feeds: Arrays) -> list[np.ndarray]:
        """Return the inputs in the artifact's order, each contiguous; raises ValueError where one is missing."""
        missing = [name for name in self._inputs if name not in feeds]
        if missing:
            raise ValueError(f"the input {missing[0]!r} is missing")
        return [np.ascontiguousarray(feeds[name]) for name in self._inputs]
