"""Tensors of the graph, and how the file stores them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ...tflite import layout
from ...tflite.layout import Order, Shape
from .errors import Code, UnsupportedError
from .quanta import Quanta


@dataclass(frozen=True)
class Held:
    """A tensor of the file; sizes of `shape` that depend on the number of rows are multiples of BATCH."""

    index: int
    shape: Shape
    dtype: str
    quanta: Quanta | None = None  # of integers that stand for real numbers

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)


@dataclass
class Value:
    """One tensor of the ONNX graph, with its ONNX shape. `forms` maps an order to the tensor stored that way.

    The first form is native: it costs nothing. `constant` is set for what does not depend on the inputs. `flattened` is
    the tensor that this one is with its axes after the first joined: a dense layer permutes its weights instead.

    A tensor of real numbers that the graph rounds to 8 bits has the `quanta` of these, and `integers` is the value that
    holds them, where that was made.
    """

    name: str
    known_shape: Shape | None
    dtype: str
    readers: int = 0  # nodes and outputs of the graph that use it
    forms: dict[Order, Held] = field(default_factory=dict)
    constant: np.ndarray | None = None
    flattened: Value | None = None
    quanta: Quanta | None = None
    integers: Value | None = None

    @property
    def scale(self) -> Quanta:
        """The quanta, which have to be there."""
        if self.quanta is None:
            raise ValueError(f"{self.name} has no scale")
        return self.quanta

    def in_integers(self) -> Value:
        """Return a new value for the integers that stand for this one in its scale."""
        self.integers = Value(self.name, self.known_shape, "int8", self.readers, quanta=self.scale)
        return self.integers

    @property
    def shape(self) -> Shape:
        """The shape in the graph; raises UnsupportedError where only running it would tell."""
        if self.known_shape is None:
            raise UnsupportedError(Code.SHAPE, f"the shape of {self.name!r} depends on the data")
        return self.known_shape

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def native(self) -> Order:
        """The order that costs nothing."""
        if not self.forms and self.integers is not None:
            return self.integers.native
        return next(iter(self.forms), layout.identity(self.rank))
