"""The report's facts: one document, written as `report.json` and shown as `report.html`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import words

if TYPE_CHECKING:
    from ..optimization.result import Entry

VERSION = 1


def document(
    *,
    job: Mapping[str, Any],
    baseline: Entry,
    delivered: Entry,
    entries: Sequence[Entry],
    profile: Sequence[tuple[int, float]],
    ledger: Sequence[Mapping[str, Any]],
    warnings: Sequence[str],
    environment: Mapping[str, str],
    recipe: Mapping[str, Any],
    bundle: Mapping[str, Any],
    mixed: Mapping[str, Any] | None = None,
    predictions: Sequence[Mapping[str, Any]] = (),
    smaller: Mapping[str, Any] | None = None,
    steps: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the facts, with ratios over the baseline and the verdict."""
    before, after = baseline.to_document(), delivered.to_document()
    facts: dict[str, Any] = {
        "version": VERSION,
        **job,
        "baseline": before,
        "delivered": after,
        "drop": delivered.drop if delivered.drop is not None else 0.0,
        "speedup": _ratio(before["latency_ms"]["p50"], after["latency_ms"]["p50"]),
        "shrink": _ratio(baseline.size_bytes, delivered.size_bytes),
        "candidates": [entry.to_document() for entry in entries],
        "profile": [{"batch": batch, "latency_ms": latency} for batch, latency in profile],
        "predictions": [_ordered(prediction) for prediction in predictions],
        "ledger": [dict(entry) for entry in ledger],
        "warnings": list(warnings),
        "environment": dict(environment),
        "recipe": dict(recipe),
        "bundle": dict(bundle),
    }
    for name, found in (("mixed", mixed), ("smaller", smaller), ("steps", steps)):
        if found:
            facts[name] = _ordered(found)
    facts["verdict"] = words.verdict(facts)
    return facts


def _ordered(value: Any) -> Any:
    """Return a document with sorted keys: TOML, which a lock keeps it in, has an order of its own."""
    if isinstance(value, Mapping):
        return {key: _ordered(value[key]) for key in sorted(value)}
    return [_ordered(item) for item in value] if isinstance(value, list) else value


def _ratio(before: float | None, after: float | None) -> float:
    return round(before / after, 4) if before and after else 1.0
