"""Rules for toolchains that end in TensorRT: everything runs on the GPU, or no engine can be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ....graph.edit import Graph, standard
from ....graph.types import infer
from ....model import Model, from_proto, opset
from ....tflite.file import TfliteFile
from ...limits import OnnxTable
from ...network import PLUMBING
from ...placement import OnnxGraph, Parameters, Placement
from ...site import OnnxSite
from . import importer
from .dla import DlaRules
from .precision import in_halves
from .release import Board

STANDARD = ("", "ai.onnx")


@dataclass(frozen=True)
class TensorRtRules:
    """The GPU runs what the importer reads; TensorRT leaves nothing to the processor."""

    board: Board = field(default_factory=Board)
    unit: str = importer.UNIT

    def fitted(self, parameters: Mapping[str, str | int | float]) -> TensorRtRules:
        """Return the rules of the board with a toolchain's parameters."""
        return TensorRtRules(Board.of(parameters))

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node; the note of one on the GPU says why it computes in FP16, where it does."""
        placements = _imported(graph, importer.table(self.board))
        opened = Graph(from_proto(graph.model, "check"))
        halves = in_halves(opened, graph.types, self.board)
        return [
            replace(placed, note=halves[id(node)])
            if id(node) in halves and placed.reason is None and placed.note is None
            else placed
            for node, placed in zip(opened.nodes, placements, strict=True)
        ]

    def notes(
        self, subject: TfliteFile | OnnxGraph, placements: list[Placement], parameters: Parameters
    ) -> list[str]:
        """Say whether an engine can be built, and how much of the model a DLA would take."""
        assert isinstance(subject, OnnxGraph)
        found = []
        refused = [p for p in placements if p.reason is not None and p.certain]
        if refused:
            found.append(f"{self.board.name} builds no engine while {len(refused)} operators are refused")
        newest = importer.newest_opset(self.board)
        if opset(subject.model) > newest:
            found.append(
                f"the graph is in operator set {opset(subject.model)}; the newest known to be read is {newest}"
            )
        return found + self._dla(subject)

    def _dla(self, subject: OnnxGraph) -> list[str]:
        if not self.board.has_dla:
            return []
        rules = DlaRules(self.board)
        counted = [
            placed.unit == rules.unit
            for node, placed in zip(subject.model.graph.node, rules.place(subject), strict=True)
            if not standard(node, *PLUMBING)
        ]
        return [f"a DLA would take {sum(counted)} of {len(counted)} operators; by default the GPU has all"]


def refused(model: Model, parameters: Mapping[str, str | int | float]) -> str | None:
    """Return why the importer refuses a model, by its first operator that is refused for certain; None else."""
    proto = Graph(model).build().proto
    placements = _imported(OnnxGraph(proto, infer(proto)), importer.table(Board.of(parameters)))
    for node, placed in zip(proto.graph.node, placements, strict=True):
        if placed.reason is not None and placed.certain:
            cure = f": {placed.cure}" if placed.cure else ""
            return f"{node.name or node.output[0]} ({node.op_type}): {placed.reason}{cure}"
    return None


def _imported(graph: OnnxGraph, table: OnnxTable) -> list[Placement]:
    constants = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    return [
        table.judge(
            node.op_type if node.domain in STANDARD else f"{node.domain}.{node.op_type}",
            OnnxSite(node, graph.types, constants),
        )
        for node in graph.model.graph.node
    ]


RULES = TensorRtRules()
DLA = DlaRules()
