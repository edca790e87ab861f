"""What a handler gets: one operator of the file with its inputs, outputs and options resolved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....tflite import schema
from ..builder import Builder, Value


class UnsupportedError(ValueError):
    """The operator is sound, but has no counterpart here; the message says which part."""


@dataclass(frozen=True)
class Operation:
    """`fixed_rows`: the file fixes its batch at one, so a slice [0, 1) of the rows means all of them."""

    name: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    options: dict[str, Any]
    fixed_rows: bool

    def input(self, position: int) -> Value:
        """Return an input that must be there; raises ValueError."""
        value = self.optional(position)
        if value is None:
            raise ValueError(f"input {position} is missing")
        return value

    def optional(self, position: int) -> Value | None:
        """Return an input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def constant(self, position: int) -> np.ndarray:
        """Return the value of an input that must not depend on the model's inputs."""
        value = self.input(position).constant
        if value is None:
            raise UnsupportedError(f"its input {position} depends on the data")
        return value

    def integers(self, position: int) -> list[int]:
        """Return a constant input as a flat list."""
        return [int(v) for v in self.constant(position).ravel()]

    @property
    def output(self) -> Value:
        """The only output."""
        return self.outputs[0]

    @property
    def activation(self) -> str:
        """The fused activation, or ""; TFLite's own kernels leave out any other."""
        number = int(self.options.get("activation", 0))
        if number not in schema.ACTIVATIONS:
            raise UnsupportedError(f"its fused activation number {number} is not one that TFLite computes")
        return schema.ACTIVATIONS[number]

    def axis(self, axis: int, rank: int) -> int:
        """Return an axis counted from the front."""
        if not -rank <= axis < rank:
            raise ValueError(f"axis {axis} is not one of {rank}")
        return axis % rank


Handler = Callable[[Builder, Operation], None]
