"""The answer of a rule set: one placement for each operator of a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import onnx

from ..graph.types import TensorType
from ..tflite.file import TfliteFile

CPU = "cpu"


@dataclass(frozen=True)
class Placement:
    """Where an operator runs. `reason` says why not on the accelerator, and is None where it is there.

    `cure` is what the user can do about it. With `certain` False the rule behind it is not confirmed by any document:
    the placement is a "maybe".
    """

    unit: str
    reason: str | None = None
    cure: str | None = None
    certain: bool = True


@dataclass(frozen=True)
class OnnxGraph:
    """What rules over ONNX look at: nodes in order of execution, types and constants by name (weights as NumPy)."""

    model: onnx.ModelProto
    types: dict[str, TensorType]


class TfliteRules(Protocol):
    """Rules over the operators of a TFLite file, for toolchains whose artifact is one."""

    unit: str  # of the accelerator

    def place(self, file: TfliteFile) -> list[Placement]:
        """Return one placement per operator, in the file's order."""
        ...


class OnnxRules(Protocol):
    """Rules over the nodes of an ONNX graph, for every other toolchain."""

    unit: str

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        ...
