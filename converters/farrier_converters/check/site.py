"""One operator where it stands, in a TFLite file or an ONNX graph: what a limit looks at. Nothing here raises."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..graph.edit import attribute
from ..graph.types import TensorType
from ..tflite.file import Operator, Tensor, TfliteFile

UNKNOWN = TensorType(onnx.TensorProto.UNDEFINED, None)


@dataclass(frozen=True)
class Site:
    """One operator where it stands: what a limit looks at."""

    file: TfliteFile
    operator: Operator

    @property
    def inputs(self) -> list[Tensor]:
        """Every input that is there, constants among them."""
        return [self.file.tensors[i] for i in self.operator.inputs if i >= 0]

    @property
    def outputs(self) -> list[Tensor]:
        """Every output."""
        return [self.file.tensors[i] for i in self.operator.outputs]

    @property
    def activations(self) -> list[Tensor]:
        """What is computed while the model runs: inputs that are no constants and no states, and all outputs."""
        return [t for t in self.inputs if t.data is None and not t.variable] + self.outputs

    def tensor(self, position: int) -> Tensor | None:
        """Return the input at a position, None where it is left out."""
        chosen = self.operator.inputs[position : position + 1]
        return self.file.tensors[chosen[0]] if chosen and chosen[0] >= 0 else None

    def shape(self, position: int = 0) -> tuple[int, ...]:
        """Return the shape of the input at a position, () where it is left out."""
        found = self.tensor(position)
        return () if found is None else found.shape

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        return self.outputs[0].shape if self.outputs else ()

    def option(self, name: str, default: float = 0) -> int | float:
        """Return a number among the operator's options."""
        found = self.operator.options.get(name, default)
        return found if isinstance(found, (int, float)) else default

    def values(self, position: int) -> list[int] | None:
        """Return a constant input as a flat list of whole numbers, None where it is computed."""
        found = self.tensor(position)
        if found is None or found.data is None:
            return None
        return [int(value) for value in found.data.ravel()]

    def axes(self, position: int = 1) -> set[int]:
        """Return the axes that a constant input names, counted from the front."""
        rank = len(self.shape())
        return {axis % rank if rank else 0 for axis in self.values(position) or []}


@dataclass(frozen=True)
class OnnxSite:
    """One node, with the types and constants of its graph."""

    node: onnx.NodeProto
    types: dict[str, TensorType]
    constants: dict[str, onnx.TensorProto]

    def name(self, position: int) -> str:
        """Return the name of the input at a position, "" where it is left out."""
        return self.node.input[position] if position < len(self.node.input) else ""

    def type(self, position: int = 0) -> TensorType:
        """Return the type of the input at a position."""
        return self.types.get(self.name(position), UNKNOWN)

    @property
    def output(self) -> TensorType:
        """The type of the first output."""
        return self.types.get(self.node.output[0], UNKNOWN) if self.node.output else UNKNOWN

    def rank(self, position: int = 0) -> int | None:
        """Return the number of dimensions of an input, None where it is unknown."""
        shape = self.type(position).shape
        return None if shape is None else len(shape)

    def constant(self, position: int) -> bool:
        """Say whether an input is a constant, or left out."""
        name = self.name(position)
        return not name or name in self.constants

    def values(self, position: int) -> list[float] | None:
        """Return a constant input of numbers as a flat list, None where it is computed."""
        tensor = self.constants.get(self.name(position))
        if tensor is None or tensor.data_type == onnx.TensorProto.STRING:
            return None
        return np.asarray(numpy_helper.to_array(tensor), np.float64).ravel().tolist()

    def attribute(self, name: str, default: object = None) -> object:
        """Return an attribute's value; text comes as text."""
        value = attribute(self.node, name, default)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
