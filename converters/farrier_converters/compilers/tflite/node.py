"""What a handler gets: one ONNX node with its inputs, outputs and attributes resolved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .builder import Builder, Value
from .errors import Code, UnsupportedError


@dataclass(frozen=True)
class Node:
    """`opset` is the version of the standard operator set that the graph uses; a missing output is None."""

    op: str
    name: str
    opset: int
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    attributes: dict[str, Any]

    def input(self, position: int) -> Value:
        """Return an input that must be there."""
        value = self.optional(position)
        if value is None:
            raise UnsupportedError(Code.ATTRIBUTE, f"its input {position} is left out")
        return value

    def optional(self, position: int) -> Value | None:
        """Return an input, or None where it is left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    @property
    def output(self) -> Value:
        """The first output."""
        value = self.outputs[0]
        if value is None:
            raise UnsupportedError(Code.ATTRIBUTE, "its first output is left out")
        return value

    def only_output(self) -> Value:
        """Return the first output; raises where others are used too."""
        if any(value is not None and value.readers for value in self.outputs[1:]):
            raise UnsupportedError(Code.ATTRIBUTE, "more than its first output is used")
        return self.output

    def constant(self, position: int) -> np.ndarray:
        """Return the value of an input that must not depend on the graph's inputs."""
        value = self.input(position)
        if value.constant is None:
            raise UnsupportedError(
                Code.VALUE, f"its input {position} ({value.name!r}) is computed; it has to be constant"
            )
        return value.constant

    def having(self, inputs: Sequence[Value | None], outputs: Sequence[Value | None]) -> Node:
        """Return the same node on other values."""
        return replace(self, inputs=tuple(inputs), outputs=tuple(outputs))

    def attr(self, name: str, default: Any = None) -> Any:
        """Return an attribute; bytes as text."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def numbers(self, name: str, position: int) -> list[int] | None:
        """Return a list that older operator sets hold as an attribute and newer ones as a constant input."""
        if name in self.attributes:
            return [int(v) for v in self.attributes[name]]
        if self.optional(position) is None:
            return None
        return [int(v) for v in self.constant(position).ravel()]

    def scalar(self, name: str, position: int, default: float | None = None) -> float | None:
        """Return a number that older operator sets hold as an attribute and newer ones as a constant input."""
        if name in self.attributes:
            return self.attributes[name]
        if self.optional(position) is None:
            return default
        return self.constant(position).ravel()[0].item()


Handler = Callable[[Builder, Node], None]


def axis_of(axis: int, rank: int) -> int:
    """Return an axis counted from the front."""
    if not -rank <= axis < rank:
        raise UnsupportedError(Code.ATTRIBUTE, f"axis {axis} is not one of {rank}")
    return axis % rank
