"""What is checked: a model file as the rules want to look at it, read and lowered at most once."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from farrier_contracts.targets import INTEGERS, Toolchain

from .. import model as models
from ..graph.edit import Graph
from ..graph.types import infer
from ..tflite import file as tflite
from ..tflite.file import Tensor, TfliteFile
from .placement import OnnxGraph

TFLITE_SUFFIXES = (".tflite", ".lite")
AS_IF = "a float graph: predicted as if it were quantized to INT8"
LOWERED = (
    "operators are those of the TFLite file that the graph becomes; each is named after the tensor it makes"
)
FLOAT, INT8, INT32 = "float32", "int8", "int32"
# operator -> positions of its biases, which are 32 bits wide
BIASES = {
    "CONV_2D": (2,),
    "DEPTHWISE_CONV_2D": (2,),
    "FULLY_CONNECTED": (2,),
    "TRANSPOSE_CONV": (3,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (12, 13, 14, 15, 17),
}


def is_tflite(path: Path) -> bool:
    """Say whether a path is that of a TFLite file."""
    return path.suffix.lower() in TFLITE_SUFFIXES


class Source:
    """A model file; reading raises InputError in one sentence."""

    def __init__(self, path: Path, settings: models.ModelSettings) -> None:
        self.path = path
        self._settings = settings
        self._files: dict[bool, TfliteFile] = {}  # by whether the ends are integers

    @cached_property
    def onnx(self) -> OnnxGraph:
        """The model as an ONNX graph whose constants are initializers."""
        graph = Graph(self._model).build().proto
        return OnnxGraph(graph, infer(graph))

    def tflite(self, toolchain: Toolchain) -> tuple[TfliteFile, list[str]]:
        """Return the model as the TFLite file of a toolchain, and what there is to say about how it became one.

        A TFLite file is taken as it stands. Another model is lowered; where a toolchain builds INT8, a float graph
        gets the types that it would have, all with one scale, since rules look at types and not at values.
        """
        if is_tflite(self.path):
            return self._file, []
        arithmetic = toolchain.arithmetic
        file = self._lowered(integer_ends=arithmetic is not None and arithmetic.quantizers == INTEGERS)
        if INT8 not in toolchain.precisions or any(tensor.dtype == INT8 for tensor in file.tensors):
            return file, [LOWERED]
        return as_int8(file), [AS_IF, LOWERED]

    @cached_property
    def _model(self) -> models.Model:
        return models.load(self.path, settings=self._settings)

    def _lowered(self, *, integer_ends: bool) -> TfliteFile:
        from ..compilers.tflite.convert import lower_model  # much to import, for TFLite files in vain

        if integer_ends not in self._files:
            self._files[integer_ends] = lower_model(self._model, integer_ends=integer_ends).file
        return self._files[integer_ends]

    @cached_property
    def _file(self) -> TfliteFile:
        return tflite.read(self.path, max_bytes=self._settings.max_bytes)


def as_int8(file: TfliteFile) -> TfliteFile:
    """Return a float file with the types of full INT8: what is computed gets a scale of 1, weights one of their own."""
    wide = {
        operator.inputs[position]
        for operator in file.operators
        for position in BIASES.get(operator.name, ())
        if position < len(operator.inputs)
    }
    return replace(
        file, tensors=tuple(_as_integers(tensor, wide=tensor.index in wide) for tensor in file.tensors)
    )


def _as_integers(tensor: Tensor, *, wide: bool) -> Tensor:
    if tensor.dtype != FLOAT:
        return tensor
    scale, data = np.ones(1, np.float32), None
    if tensor.data is not None:
        largest = max(float(np.abs(tensor.data).max(initial=0)), np.finfo(np.float32).tiny)
        scale = np.array([largest / np.iinfo(np.int8).max], np.float32)
        data = np.rint(tensor.data / scale).astype(np.int32 if wide else np.int8)
    dtype = INT32 if wide else INT8
    return replace(tensor, dtype=dtype, data=data, scales=scale, zero_points=np.zeros(1, np.int64), axis=0)
