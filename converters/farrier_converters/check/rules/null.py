"""The null rules: nothing is known of any node. The template to copy, and the double for tests."""

from __future__ import annotations

from ..placement import OnnxGraph, Placement


class NullRules:
    """Knows nothing, and says so."""

    unit = "unknown"

    def place(self, graph: OnnxGraph) -> list[Placement]:
        """Return one placement per node, in the graph's order."""
        why = Placement(self.unit, "no rules are known for this toolchain", certain=False)
        return [why for _ in graph.model.graph.node]


RULES = NullRules()
