"""What is checked: a model file as the rules want to look at it, read and lowered at most once."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import onnx

from farrier_contracts.errors import InputError
from farrier_contracts.targets import INTEGERS, Arithmetic, Toolchain

from .. import model as models
from ..graph.edit import Graph, standard
from ..graph.types import infer
from ..quantize.rules import INTEGER_OPERATORS
from ..tflite import file as tflite
from ..tflite.file import TfliteFile
from .network import PLUMBING
from .placement import OnnxGraph

TFLITE_SUFFIXES = (".tflite", ".lite")
AS_IF = "a float graph: predicted as if it were quantized to INT8"
LOWERED = (
    "operators are those of the TFLite file that the graph becomes; each is named after the tensor it makes"
)
INT8 = "int8"  # among a toolchain's precisions


def is_tflite(path: Path) -> bool:
    """Say whether a path is that of a TFLite file."""
    return path.suffix.lower() in TFLITE_SUFFIXES


class Source:
    """A model file, or a `model` that was read from it before; reading raises InputError in one sentence."""

    def __init__(self, path: Path, settings: models.ModelSettings, model: models.Model | None = None) -> None:
        self.path = path
        self._settings = settings
        self._given = model
        self._files: dict[Toolchain, TfliteFile] = {}

    @cached_property
    def onnx(self) -> OnnxGraph:
        """The model as an ONNX graph whose constants are initializers."""
        graph = Graph(self._model).build().proto
        return OnnxGraph(graph, infer(graph))

    def tflite(self, toolchain: Toolchain) -> tuple[TfliteFile, list[str]]:
        """Return the model as the TFLite file of a toolchain, and what there is to say about how it became one.

        A TFLite file is taken as it stands. Another model is lowered; a float graph is quantized with made-up ranges
        before, where the toolchain builds INT8.
        """
        if is_tflite(self.path):
            return self._file, []
        arithmetic = toolchain.arithmetic
        as_if = (
            arithmetic is not None and INT8 in toolchain.precisions and not is_quantized(self._model.proto)
        )
        if toolchain not in self._files:
            self._files[toolchain] = self._lowered(arithmetic, as_if=as_if)
        return self._files[toolchain], [AS_IF, LOWERED] if as_if else [LOWERED]

    @cached_property
    def _model(self) -> models.Model:
        return self._given or models.load(self.path, settings=self._settings)

    def _lowered(self, arithmetic: Arithmetic | None, *, as_if: bool) -> TfliteFile:
        from ..compilers.tflite.convert import lower_model  # much to import, for TFLite files in vain
        from .as_if import quantized

        model = self._model
        integer_ends = arithmetic is not None and arithmetic.quantizers == INTEGERS
        try:
            with np.errstate(all="ignore"):  # values do not matter
                model = quantized(model, arithmetic) if as_if and arithmetic is not None else model
                return lower_model(model, integer_ends=integer_ends).file
        except (
            ValueError,
            IndexError,
        ) as error:  # shapes that contradict each other, in what is computed here
            why = next(iter(str(error).splitlines()), "")
            raise InputError(f"{self.path} contradicts itself, and cannot be lowered: {why}") from None

    @cached_property
    def _file(self) -> TfliteFile:
        return tflite.read(self.path, max_bytes=self._settings.max_bytes)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Say whether somebody quantized a graph: it has quantizers, or operators that compute in integers."""
    return any(standard(node, *PLUMBING) or node.op_type in INTEGER_OPERATORS for node in model.graph.node)
