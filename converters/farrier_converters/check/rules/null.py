"""The null rules: nothing runs anywhere. The template to copy, and the double for tests."""

from __future__ import annotations

from ..placement import OnnxGraph, Placement


class NullRules:
    """Refuses every node."""

    unit = "none"

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        return [Placement(self.unit, "the null target runs nothing") for _ in graph.model.graph.node]


RULES = NullRules()
