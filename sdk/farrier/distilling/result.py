"""What a distillation found: each model with its score and costs, how training went, what to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farrier_converters.metrics import Metric

from ..report import words


@dataclass(frozen=True)
class Scored:
    """One model: its metric on the rows that judge, bytes of its file, weights, and median time of a run."""

    name: str
    value: float
    bytes: int
    parameters: int
    latency_ms: float

    def to_document(self) -> dict[str, Any]:
        """Return the form of report.json."""
        return {
            "name": self.name,
            "metric": self.value,
            "bytes": self.bytes,
            "parameters": self.parameters,
            "latency_ms": {"p50": self.latency_ms, "batch": 1, "threads": 1},
        }


@dataclass(frozen=True)
class Result:
    """The delivered student and all that it was compared with, in the order of the workflow.

    `models` holds "teacher", "adapted teacher", "student before", "student alone" and "distilled", as far as there are
    any; `delivered` names the one that was written.
    """

    out: Path
    metric: Metric
    models: Mapping[str, Scored]
    delivered: str
    rows: Mapping[str, int]
    history: Mapping[str, Any]
    options: Mapping[str, Any]
    layers: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def student(self) -> Path:
        """The delivered model."""
        return self.out / "student.onnx"

    @property
    def kept(self) -> float | None:
        """The student's score as a share of its teacher's; None for an error, which should be small."""
        teacher = self.models.get("adapted teacher", self.models["teacher"])
        if self.metric.relative or teacher.value <= 0:
            return None
        return self.models[self.delivered].value / teacher.value

    @property
    def verdict(self) -> str:
        """One sentence of what was reached."""
        teacher = self.models.get("adapted teacher", self.models["teacher"])
        student, relative = self.models[self.delivered], self.metric.relative
        shown = [words.metric(found.value, relative=relative) for found in (student, teacher)]
        kept = "" if self.kept is None else f", {self.kept:.1%} of it"
        return (
            f"The student reaches {self.metric.name} {shown[0]}, its teacher {shown[1]}{kept}; it is "
            f"{words.times(teacher.bytes / student.bytes)} smaller and takes "
            f"{words.milliseconds(student.latency_ms)} a run, the teacher {words.milliseconds(teacher.latency_ms)}."
        )

    def to_document(self) -> dict[str, Any]:
        """Return report.json: everything above as numbers, lists and strings."""
        return {
            "metric": {
                "name": self.metric.name,
                "higher_is_better": self.metric.higher_is_better,
                "relative": self.metric.relative,
            },
            "models": {name: found.to_document() for name, found in self.models.items()},
            "delivered": self.delivered,
            "student": "student.onnx",
            "kept": self.kept,
            "verdict": self.verdict,
            "rows": dict(self.rows),
            "history": dict(self.history),
            "options": dict(self.options),
            "layers": dict(self.layers),
            "notes": list(self.notes),
        }
