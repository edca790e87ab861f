"""What a comparison found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Judged:
    """Both models by the engine's own kernels: the metric of each, and each output's distance.

    `outputs` holds, per output: `name`, `snr_db` (None for whole numbers), `max_error`, `equal` (share of elements).
    """

    metric: str
    a: float
    b: float
    drop: float
    relative: bool
    outputs: tuple[Mapping[str, Any], ...]

    def to_document(self) -> dict[str, Any]:
        """Return the form of `compare --json`."""
        return {
            "metric": {"name": self.metric, "a": self.a, "b": self.b, "relative": self.relative},
            "drop": self.drop,
            "outputs": [dict(output) for output in self.outputs],
        }

    @property
    def snr_db(self) -> float:
        """The worst output's signal-to-noise ratio."""
        return min((o["snr_db"] for o in self.outputs if o["snr_db"] is not None), default=0.0)


@dataclass(frozen=True)
class Applied:
    """What the cure did: the model that was written, how it was made, and the figures before and after.

    `recovered`: the share (1 = all) of the lost metric that came back; `recovered_signal`: of the outputs' squared
    error.
    """

    path: Path
    steps: tuple[str, ...]
    options: Mapping[str, Any]
    before: Judged
    after: Judged
    recovered: float | None
    recovered_signal: float

    def to_document(self) -> dict[str, Any]:
        """Return the form of `compare --json`."""
        return {
            "path": str(self.path),
            "steps": list(self.steps),
            "options": dict(self.options),
            "before": self.before.to_document(),
            "after": self.after.to_document(),
            "recovered": self.recovered,
            "recovered_signal": self.recovered_signal,
        }


@dataclass(frozen=True)
class Comparison:
    """Two models side by side; `report` is the drop report's document."""

    a: str
    b: str
    rows: int
    judged: Judged
    report: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    applied: Applied | None = None

    def to_document(self) -> dict[str, Any]:
        """Return the form of `compare --json`."""
        return {
            "a": self.a,
            "b": self.b,
            "evaluated_rows": self.rows,
            **self.judged.to_document(),
            **self.report,
            "notes": list(self.notes),
            "applied": None if self.applied is None else self.applied.to_document(),
        }
