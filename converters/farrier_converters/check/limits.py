"""Limits as data: what an accelerator refuses, where that is written, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..tflite.file import TfliteFile
from .placement import CPU, OnnxGraph, Placement
from .site import OnnxSite, Site

S = TypeVar("S")


@dataclass(frozen=True)
class Limit(Generic[S]):
    """One limit. `broken` returns something true where it is broken; `{}` in `reason` stands for that.

    `source` is the document and its version. What no document confirms has `confirmed` False; where such a limit was
    seen to hold and not to hold, `refuses` is False, and the operator stays on the accelerator with a doubt.
    """

    broken: Callable[[S], object]
    reason: str
    source: str
    cure: str | None = None
    confirmed: bool = True
    refuses: bool = True


@dataclass(frozen=True)
class Table(Generic[S]):
    """The limits of one accelerator: of every operator, and by operator; what is not listed it does not have.

    `title` names it in sentences, `cures` are for operators that are not listed, `elsewhere` is where those run.
    """

    unit: str
    title: str
    source: str
    everywhere: Sequence[Limit[S]]
    operators: Mapping[str, Sequence[Limit[S]]]
    cures: Mapping[str, str]
    elsewhere: str = CPU
    complete: bool = True  # a confirmed list: what is not in it is refused for certain

    def judge(self, name: str, site: S) -> Placement:
        """Return where one operator runs, seen alone: a confirmed refusal counts before a doubtful one."""
        if name not in self.operators:
            reason = f"{self.title} has no {name}"
            cure = self.cures.get(name)
            return Placement(self.elsewhere, reason, cure, certain=self.complete, source=self.source)
        found: list[tuple[Limit[S], object]] = []
        for limit in (*self.everywhere, *self.operators[name]):
            value = limit.broken(site)
            if value:
                found.append((limit, value))
        if not found:
            return Placement(self.unit)
        limit, value = min(found, key=lambda item: (not item[0].refuses, not item[0].confirmed))
        text = limit.reason.format(value)
        if limit.refuses:
            return Placement(self.elsewhere, text, limit.cure, certain=limit.confirmed, source=limit.source)
        return Placement(self.unit, certain=False, source=limit.source, note=text)


class TfliteTable(Table[Site]):
    """Rules over TFLite files in which each operator is seen alone."""

    def place(self, file: TfliteFile) -> list[Placement]:
        """Return one placement per operator, in the file's order."""
        return [self.judge(operator.name, Site(file, operator)) for operator in file.operators]


class OnnxTable(Table[OnnxSite]):
    """Rules over ONNX graphs in which each node is seen alone."""

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        constants = {tensor.name: tensor for tensor in graph.model.graph.initializer}
        nodes = graph.model.graph.node
        return [self.judge(node.op_type, OnnxSite(node, graph.types, constants)) for node in nodes]
