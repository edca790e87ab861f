"""The answer of a rule set: one placement for each operator of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import onnx

from ..graph.types import TensorType
from ..tflite.file import TfliteFile

CPU = "cpu"
Parameters = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Placement:
    """Where an operator runs. `reason` says why not on the accelerator, and is None where it is there.

    `cure` is what the user can do about it. With `certain` False the rule behind it is not confirmed by any document:
    the placement is a "maybe". `source` is where the rule stands; `note` is the doubt about an operator that is placed
    on the accelerator all the same.
    """

    unit: str
    reason: str | None = None
    cure: str | None = None
    certain: bool = True
    source: str | None = None
    note: str | None = None


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


@runtime_checkable
class Annotates(Protocol):
    """Rules that have something to say about the whole, too: memory, what was assumed."""

    def notes(
        self, subject: TfliteFile | OnnxGraph, placements: list[Placement], parameters: Parameters
    ) -> list[str]:
        """Return sentences; `parameters` are the toolchain's, which hold what the rules must know of the board."""
        ...


@runtime_checkable
class Fitting(Protocol):
    """Rules that differ from board to board."""

    def fitted(self, parameters: Parameters) -> OnnxRules:
        """Return the rules of the board with a toolchain's parameters."""
        ...
