"""The result of a check, and the document that scripts read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farrier_contracts.targets import Toolchain
from farrier_converters.check.partitions import Partition
from farrier_converters.check.pipeline import Segment
from farrier_converters.check.predict import Prediction, Share


@dataclass(frozen=True)
class Check:
    """What was predicted with one of a target's toolchains; `refused` says why not with those before it."""

    model: Path
    prediction: Prediction
    others: tuple[Toolchain, ...]
    refused: tuple[tuple[Toolchain, str], ...]
    segments: tuple[Segment, ...] = ()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One document per operator, in graph order; what only carries values between precisions is left out."""
        numbers = self._numbers()
        return [
            {
                "index": numbers[place],
                "name": step.name,
                "op": step.op,
                "unit": placement.unit,
                "reason": placement.reason,
                "cure": placement.cure,
                "certain": placement.certain,
                "note": placement.note,
                "source": placement.source,
                "multiply_adds": step.multiply_adds,
            }
            for place, (step, placement) in enumerate(
                zip(self.prediction.network.steps, self.prediction.placements, strict=True)
            )
            if place in numbers
        ]

    @property
    def first_refusal(self) -> str:
        """The first operator that certainly is not accelerated, with the reason."""
        refusals = (row for row in self.rows if row["reason"] is not None)
        row = min(refusals, key=lambda row: (not row["certain"], row["index"]))
        return f"operator {row['index']} ({row['op']} {row['name']}): {row['reason']}"

    def to_document(self) -> dict[str, Any]:
        """Return all of it as JSON-ready data."""
        best = self.prediction
        return {
            "model": str(self.model),
            "target": best.target,
            "toolchain": _named(best.toolchain),
            "accelerated": _share(best.accelerated),
            "possible": _share(best.possible),
            "partitions": [self._partition(item) for item in best.partitions],
            "crossing_bytes": best.crossing_bytes,
            "memory": {
                "parameter_bytes": best.network.parameter_bytes,
                "peak_activation_bytes": best.peak_activation_bytes,
            },
            "segments": [asdict(segment) for segment in self.segments],
            "notes": list(best.notes),
            "ops": self.rows,
            "other_toolchains": [
                *(_named(toolchain) for toolchain in self.others),
                *({**_named(toolchain), "refused": why} for toolchain, why in self.refused),
            ],
        }

    def _partition(self, item: Partition) -> dict[str, Any]:
        numbers = self._numbers()
        return {
            "unit": item.unit,
            "ops": [numbers[place] for place in item.steps if place in numbers],
            "bytes_in": item.bytes_in,
            "bytes_out": item.bytes_out,
            "multiply_adds": item.multiply_adds,
        }

    def _numbers(self) -> dict[int, int]:
        """Return the number of each counted operator, by its place in the network."""
        places = [place for place, step in enumerate(self.prediction.network.steps) if step.counted]
        return {place: number for number, place in enumerate(places)}


def _share(share: Share) -> dict[str, float | None]:
    return {"ops": share.ops, "multiply_adds": share.multiply_adds}


def _named(toolchain: Toolchain) -> dict[str, str]:
    return {
        "compiler": toolchain.compiler,
        "format": toolchain.format,
        "engine": toolchain.engine,
        "rules": toolchain.rules,
    }
