"""A TFLite file in an interpreter, LiteRT's or an older one; inputs are resized to the batch that comes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from farrier_contracts.tensors import DATATYPES, TensorSpec

from ..tflite.ends import End


class Interpreter(Protocol):
    """What every release of TFLite's interpreter offers, as far as it is needed here."""

    def allocate_tensors(self) -> None:
        """Plan the memory of all tensors."""

    def get_input_details(self) -> Sequence[Mapping[str, Any]]:
        """Describe the inputs: name, index, shape, dtype and scale."""
        ...

    def get_output_details(self) -> Sequence[Mapping[str, Any]]:
        """Describe the outputs likewise."""
        ...

    def resize_tensor_input(self, input_index: int, tensor_size: Sequence[int]) -> None:
        """Give an input another shape."""

    def set_tensor(self, tensor_index: int, value: np.ndarray) -> None:
        """Copy an array into an input."""

    def get_tensor(self, tensor_index: int) -> np.ndarray:
        """Copy an output out."""
        ...

    def reset_all_variables(self) -> None:
        """Forget the state of recurrent operators."""

    def invoke(self) -> None:
        """Run once."""


class InterpreterSession:
    """One open file. Options: `layouts` and `quantized` of `compilers.Compiled`."""

    def __init__(self, interpreter: Interpreter, options: Mapping[str, Any]) -> None:
        self._interpreter = interpreter
        self._interpreter.allocate_tensors()
        details = [*self._interpreter.get_input_details(), *self._interpreter.get_output_details()]
        self._ends = {
            d["name"]: End.of(d["name"], np.dtype(d["dtype"]).name, d["quantization"], options)
            for d in details
        }
        self.inputs = tuple(map(self._spec, self._interpreter.get_input_details()))

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        inputs = self._interpreter.get_input_details()
        arrays = {i["name"]: self._ends[i["name"]].stored(feeds[i["name"]]) for i in inputs}
        if any(tuple(i["shape"]) != arrays[i["name"]].shape for i in inputs):
            for i in inputs:
                self._interpreter.resize_tensor_input(i["index"], arrays[i["name"]].shape)
            self._interpreter.allocate_tensors()
        for i in inputs:
            self._interpreter.set_tensor(i["index"], arrays[i["name"]])
        self._interpreter.reset_all_variables()  # a recurrent model's state is not the next row's, as on a device
        self._interpreter.invoke()
        outputs = self._interpreter.get_output_details()
        return {
            o["name"]: self._ends[o["name"]].given(self._interpreter.get_tensor(o["index"])) for o in outputs
        }

    def _spec(self, detail: Mapping[str, Any]) -> TensorSpec:
        end, shape = self._ends[detail["name"]], tuple(map(int, detail["shape_signature"]))
        layout = end.layout or range(len(shape))
        kind = end.dtype if end.scale is None else "float32"
        return TensorSpec(
            detail["name"], DATATYPES[kind], tuple(shape[layout.index(axis)] for axis in range(len(shape)))
        )
