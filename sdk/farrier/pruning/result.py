"""What a pruning found: the model before and after, what went, what to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farrier_converters.metrics import Metric

from ..report import words


@dataclass(frozen=True)
class Figures:
    """A model in numbers. Latency is the median of one run at batch 1 and one thread, None where it was not measured.

    `predicted_ms` follows the staircase; `metric` is None without evaluation data. `zeros` is the share of zeros in
    the weights that can be sparse, None unless sparsity was asked for.
    """

    multiply_adds: int
    parameters: int
    bytes: int
    predicted_ms: float
    latency_ms: float | None = None
    metric: float | None = None
    zeros: float | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the form of report.json."""
        return dict(vars(self))


@dataclass(frozen=True)
class LayerChange:
    """A layer before and after, in channels; 0 where it is gone."""

    name: str
    kind: str
    outputs: tuple[int, int]
    inputs: tuple[int, int]


@dataclass(frozen=True)
class Pruning:
    """The delivered model and how it came about; `to_document` is report.json.

    `reached` says whether the goal was; where it was not, `note` says why, and the model is the best there is.
    `delivered` is "pruned", or "original" where nothing that could go made it faster.
    """

    out: Path | None
    model: str
    target: str
    engine: str
    precision: str
    steps: str  # where the widths come from: "measured on DATE", "known blocks", "any width"
    goal: str
    importance: str
    before: Figures
    after: Figures
    groups: tuple[Mapping[str, Any], ...]
    blocks: tuple[str, ...]
    layers: tuple[LayerChange, ...]
    frozen: tuple[Mapping[str, Any], ...]
    reached: bool
    delivered: str
    metric: Metric | None = None
    history: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def multiply_add_gain(self) -> float:
        """How many times fewer multiply-adds."""
        return self.before.multiply_adds / max(self.after.multiply_adds, 1)

    @property
    def latency_gain(self) -> float | None:
        """How many times faster, as measured."""
        if self.before.latency_ms is None or self.after.latency_ms is None:
            return None
        return self.before.latency_ms / self.after.latency_ms

    @property
    def efficiency(self) -> float | None:
        """The gain in time over that in multiply-adds: 1 where every multiply-add that went saved its time."""
        return None if self.latency_gain is None else self.latency_gain / self.multiply_add_gain

    @property
    def verdict(self) -> str:
        """One sentence of what was reached."""
        if self.delivered == "original":
            return "The model stays as it is: nothing that can go makes it faster on this target."
        faster = ""
        if self.latency_gain is not None:
            faster = f"runs {words.times(self.latency_gain)} as fast on {self.engine}, "
        kept = ""
        if self.metric is not None and self.after.metric is not None:
            relative = self.metric.relative
            shown = [words.metric(f.metric, relative=relative) for f in (self.before, self.after)]
            kept = f"; {self.metric.name} {shown[0]} → {shown[1]}"
        if self.after.zeros is not None and self.multiply_add_gain == 1:
            return f"Of the weights that can be sparse, {self.after.zeros:.1%} are zero{kept}."
        return (
            f"The pruned model {faster}has {words.times(self.multiply_add_gain)} fewer multiply-adds and "
            f"{words.times(self.before.parameters / max(self.after.parameters, 1))} fewer parameters{kept}."
        )

    def to_document(self) -> dict[str, Any]:
        """Return report.json: numbers, lists and strings."""
        metric = self.metric
        return {
            "format": "farrier-pruning",
            "format_version": 1,
            "model": self.model,
            "delivered": self.delivered,
            "verdict": self.verdict,
            "target": self.target,
            "engine": self.engine,
            "precision": self.precision,
            "steps": self.steps,
            "goal": self.goal,
            "reached": self.reached,
            "importance": self.importance,
            "metric": None
            if metric is None
            else {
                "name": metric.name,
                "higher_is_better": metric.higher_is_better,
                "relative": metric.relative,
            },
            "before": self.before.to_document(),
            "after": self.after.to_document(),
            "gain": {
                "multiply_adds": self.multiply_add_gain,
                "latency": self.latency_gain,
                "efficiency": self.efficiency,
            },
            "groups": [dict(group) for group in self.groups],
            "blocks": list(self.blocks),
            "layers": [
                {**vars(layer), "outputs": list(layer.outputs), "inputs": list(layer.inputs)}
                for layer in self.layers
            ],
            "frozen": [dict(item) for item in self.frozen],
            "history": dict(self.history),
            "options": dict(self.options),
            "notes": list(self.notes),
        }
