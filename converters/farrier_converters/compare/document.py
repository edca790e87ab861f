"""The drop report as one document: outputs, layers, causes; the same for `farrier compare` and `farrier optimize`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..data import Dataset
from ..graph.edit import Graph
from ..model import Model
from .causes import Finding
from .diagnose import diagnose, output_db
from .facts import Facts
from .pairs import left_out
from .probe import LayerSums, ProbeSettings, decibels, probe
from .processors import pair_saturation
from .share import ShareSettings, shares

VERSION = 1


@dataclass(frozen=True)
class CompareSettings:
    """What bounds time and memory of a comparison."""

    rows: int = 256  # looked at layer by layer, spread evenly over the data
    batch: int = 16  # rows a run, where the models leave that free
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    share: ShareSettings = field(default_factory=ShareSettings)
    emulated: int = 8  # rows on which B is tried in the integers of other x86 processors; 0: not at all


@dataclass(frozen=True)
class DropReport:
    """Where B differs from A and why. `snr_db` is that of the worst output, in reference arithmetic."""

    snr_db: float
    facts: Facts
    findings: tuple[Finding, ...]
    rows: int

    def to_document(self) -> dict[str, Any]:
        """Return the form of `compare --json` and of `drop_report` in report.json."""
        probed = self.facts.probed
        return {
            "version": VERSION,
            "rows": self.rows,
            "snr_db": round(self.snr_db, 2),
            "layers": [self._layer(p.name) for p in probed.pairs],
            "causes": [finding.to_document() for finding in self.findings],
            "unpaired": list(probed.unpaired),
            "left_out": left_out(Graph(probed.a)),
        }

    def _layer(self, name: str) -> dict[str, Any]:
        p, sums = self.facts.by_name[name], self.facts.probed.sums[name]
        share = self.facts.shares.get(name)
        return {
            "tensor": name,
            "layer": p.node or name,
            "op": p.op,
            "snr_db": _db(sums, sums.error),
            "own_snr_db": _db(sums, sums.own),
            "share": None if not self.facts.shares else round(share or 0.0, 4),
        }


def drop_report(
    a: Model,
    b: Model,
    data: Dataset,
    *,
    settings: CompareSettings = CompareSettings(),
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> DropReport:
    """Compare B with A layer by layer over rows of the data; raises InputError where one of them does not run."""
    rows = evenly(data, settings.rows)
    size = data.fixed_batch or min(settings.batch, len(rows))

    def batches() -> Iterator[dict[str, np.ndarray]]:
        return (feeds for feeds, _ in rows.batches(size))

    probed = probe(
        a,
        b,
        batches,
        progress=lambda share: progress("comparing layers", 0.7 * share),
        settings=settings.probe,
    )
    few = rows.rows[: min(data.fixed_batch or settings.share.rows, len(rows))]
    feeds = data.feed(np.resize(few, data.fixed_batch)) if data.fixed_batch else data.feed(few)
    found = shares(
        probed,
        feeds,
        settings=settings.share,
        progress=lambda share: progress("finding each layer's share", 0.7 + 0.2 * share),
    )
    facts = Facts(probed, found)
    findings = diagnose(facts)
    if settings.emulated:
        progress("emulating other processors", 0.9)
        elsewhere = pair_saturation(a, b, evenly(data, max(settings.emulated, data.fixed_batch or 1)))
        findings = [*findings, *([elsewhere] if elsewhere is not None else [])]  # no part of the loss here
    return DropReport(output_db(facts), facts, tuple(findings), len(rows))


def evenly(data: Dataset, rows: int) -> Dataset:
    """Return at most `rows` rows, spread evenly."""
    if len(data) <= rows:
        return data
    return data.take(data.rows[np.linspace(0, len(data) - 1, rows).astype(np.int64)])


def _db(sums: LayerSums, error: float) -> float:
    return round(decibels(sums.signal, error), 2)
