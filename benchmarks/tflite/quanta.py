"""INT8 TFLite operator by operator: how far LiteRT's three sets of kernels are from exact arithmetic, in quanta.

    python -m benchmarks.tflite.quanta [--shared-data ../shared/data] [--rows 8]

Networks: UltraFace RFB-320, ResNet20 and MLPerf Tiny's as we make them INT8, MLPerf Tiny's and Coral's as published.
Each runs in LiteRT, in a process of its own, with all its tensors as outputs. Each operator is computed again
from the engine's own inputs in doubles and rounded once, half to even (`farrier_converters.emulate.tflite.exact`).
Rows are half real, half random. The figure is the share of values within one quantum, over all networks and kernels.
LiteRT's own int8 RESIZE_BILINEAR keeps places to 1/1024 of a pixel, and misses by more on large images by design.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from farrier_converters.emulate.tflite.exact import exact
from farrier_converters.measure import Child
from farrier_converters.tflite.exposed import exposed
from farrier_converters.tflite.write import write

from ..figure import emit
from .networks import Network, networks

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ("xnnpack", "builtin", "reference")
REPEATED = ("UNIDIRECTIONAL_SEQUENCE_LSTM",)  # rounds at every step: no result is of one rounding


@dataclass
class Distances:
    """Values of each kind of operator: all, off by one, off by more."""

    values: Counter[str] = field(default_factory=Counter)
    by_one: Counter[str] = field(default_factory=Counter)
    by_more: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        if ours.dtype.kind not in "iu":
            return
        distance = np.abs(ours.astype(np.int64) - theirs)
        self.values[kind] += distance.size
        self.by_one[kind] += int((distance == 1).sum())
        self.by_more[kind] += int((distance > 1).sum())

    def update(self, other: Distances) -> None:
        for mine, its in zip(self._counters(), other._counters(), strict=True):
            mine.update(its)

    def _counters(self) -> tuple[Counter[str], ...]:
        return self.values, self.by_one, self.by_more


def measure(network: Network, kernels: str, folder: Path) -> Distances:
    file = exposed(network.file)
    path = folder / "network.tflite"
    path.write_bytes(write(file))
    (index,) = file.inputs
    found = Distances()
    with Child(path, "litert", options={"kernels": kernels}) as child:
        for row in network.rows:
            known = {str(index): row, **child.run({str(index): row})}
            for operator in file.operators:
                if operator.name in REPEATED:
                    continue
                values = [None if i < 0 else known.get(str(i), file.tensors[i].data) for i in operator.inputs]
                for i, ours in zip(operator.outputs, exact(file, operator, values), strict=True):
                    found.add(operator.name, ours, known[str(i)])
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rows", type=int, default=8, help="real rows of each network")
    given = arguments.parse_args()
    sums = {kernels: Distances() for kernels in KERNELS}
    with tempfile.TemporaryDirectory() as folder:
        for network in networks(given.shared_data, given.rows):
            for kernels in KERNELS:
                found = measure(network, kernels, Path(folder))
                sums[kernels].update(found)
                print(
                    f"{network.name:34}{kernels:10}{found.values.total():14,} values, by one"
                    f" {found.by_one.total():,}, by more {found.by_more.total():,}",
                    flush=True,
                )
    for kernels, found in sums.items():
        for kind, count in sorted(found.values.items()):
            one, more = found.by_one[kind], found.by_more[kind]
            print(f"{kernels:10}{kind:24}{count:14,}  by one {100 * one / count:.5f} %  by more {more:,}")
    total = sum(found.values.total() for found in sums.values())
    far = sum(found.by_more.total() for found in sums.values())
    emit("tflite_quanta_within_one", 1 - far / total, goal=1.0, unit="share of values")


if __name__ == "__main__":
    main()
