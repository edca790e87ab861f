"""What an optimization found and made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farrier_converters.measure import Latency

KERNELS = "kernels"  # this machine's, as the engine chooses them
REFERENCE = "reference"  # the engine's slow arithmetic that nothing saturates in


@dataclass(frozen=True)
class Entry:
    """One candidate: its figures, or why it has none. `drop` is against the original model."""

    name: str
    precision: str
    kept: bool = False
    reason: str = ""
    artifact: str | None = None  # path relative to the output folder, where it was delivered
    metric_name: str = ""
    metric: float | None = None
    drop: float | None = None
    latency: Latency | None = None
    size_bytes: int | None = None
    peak_memory_bytes: int | None = None
    engine: str = ""
    stand_in: str = (
        ""  # the engine that answered here, where the target's cannot be had; its times do not count
    )
    arithmetic: str = KERNELS  # that the metric was measured in; latency and memory always are of the kernels

    def to_document(self) -> dict[str, Any]:
        """Return the form of `report.json`."""
        latency = self.latency
        return {
            "name": self.name,
            "precision": self.precision,
            "engine": self.engine,
            "stand_in": self.stand_in or None,
            "kept": self.kept,
            "reason": self.reason,
            "artifact": self.artifact,
            "metric": {"name": self.metric_name, "value": self.metric, "arithmetic": self.arithmetic},
            "drop": self.drop,
            "latency_ms": latency
            and {
                "p50": round(latency.p50_ms, 6),
                "p99": round(latency.p99_ms, 6),
                "batch": latency.batch,
                "threads": latency.threads,
                "spread": round(latency.spread, 4),
            },
            "throughput": latency and round(latency.throughput, 3),
            "cpu_us_per_item": latency and round(latency.cpu_us_per_item, 3),
            "bytes": self.size_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
        }

    @staticmethod
    def from_document(document: Mapping[str, Any]) -> Entry:
        """Read `to_document`'s form back; the single latency samples are not in it."""
        timed = document.get("latency_ms")
        latency = timed and Latency(
            batch=timed["batch"],
            threads=timed["threads"],
            p50_ms=timed["p50"],
            p99_ms=timed["p99"],
            spread=timed["spread"],
            throughput=document["throughput"],
            cpu_us_per_item=document["cpu_us_per_item"],
        )
        return Entry(
            name=document["name"],
            precision=document["precision"],
            engine=document.get("engine", ""),
            stand_in=document.get("stand_in") or "",
            kept=document["kept"],
            reason=document["reason"],
            artifact=document.get("artifact"),
            metric_name=document["metric"]["name"],
            metric=document["metric"].get("value"),
            arithmetic=document["metric"].get("arithmetic", KERNELS),
            drop=document.get("drop"),
            latency=latency or None,
            size_bytes=document.get("bytes"),
            peak_memory_bytes=document.get("peak_memory_bytes"),
        )


@dataclass(frozen=True)
class Result:
    """A finished optimization: the folder it wrote, the verdict, and the facts of the report."""

    out: Path
    bundle: Path
    artifact: Path
    verdict: str
    baseline: Entry
    delivered: Entry
    candidates: tuple[Entry, ...]
    drop: float
    speedup: float
    shrink: float
    warnings: tuple[str, ...] = ()
    report: Mapping[str, Any] = field(default_factory=dict, repr=False)
