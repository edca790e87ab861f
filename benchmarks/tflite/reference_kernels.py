"""TFLite's reference kernels, computed on the host: whole networks against LiteRT, every tensor, every value.

    python -m benchmarks.tflite.reference_kernels [--shared-data ../shared/data] [--rows 8]

Networks: UltraFace RFB-320, ResNet20 and MLPerf Tiny's as we make them INT8, MLPerf Tiny's and Coral's as published.
Each runs once in LiteRT with its reference kernels, in a process of its own, with all its tensors as outputs;
and once in `farrier_converters.emulate.tflite`, each operator fed with what the emulation computed before. Rows are
half real, half random. The figure is the share of values, over all tensors of all networks, that are equal.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from farrier_converters.emulate import tflite
from farrier_converters.measure import Child
from farrier_converters.tflite.exposed import exposed
from farrier_converters.tflite.write import write

from ..figure import emit
from .networks import Network, networks

ROOT = Path(__file__).resolve().parents[2]


def compare(network: Network, folder: Path) -> tuple[int, int, float, float]:
    """Return how many values were compared and are equal, and the seconds a row takes in LiteRT and here."""
    file = exposed(network.file)
    path = folder / "network.tflite"
    path.write_bytes(write(file))
    (index,) = file.inputs
    total = equal = 0
    theirs_s = ours_s = 0.0
    with Child(path, "litert", options={"kernels": "reference"}) as child:
        for row in network.rows:
            start = time.perf_counter()
            expected = child.run({str(index): row})
            theirs_s += time.perf_counter() - start
            start = time.perf_counter()
            found = {
                str(i): array
                for step in tflite.steps(file, {str(index): row})
                for i, array in zip(step.operator.outputs, step.outputs, strict=True)
            }
            ours_s += time.perf_counter() - start
            total += sum(array.size for array in expected.values())
            equal += sum(int(np.equal(found[name], array).sum()) for name, array in expected.items())
    return total, equal, theirs_s / len(network.rows), ours_s / len(network.rows)


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rows", type=int, default=8, help="real rows of each network")
    given = arguments.parse_args()
    total = equal = 0
    print(f"{'network':34}{'operators':>10}{'rows':>6}{'values':>14}{'unequal':>9}  s a row: LiteRT, here")
    with tempfile.TemporaryDirectory() as folder:
        for network in networks(given.shared_data, given.rows):
            count, same, theirs_s, ours_s = compare(network, Path(folder))
            total, equal = total + count, equal + same
            print(
                f"{network.name:34}{len(network.file.operators):10}{len(network.rows):6}{count:14,}{count - same:9,}"
                f"  {theirs_s:.3f}, {ours_s:.3f}",
                flush=True,
            )
    emit("tflite_reference_kernels", equal / total, goal=1.0, unit="share of equal values")


if __name__ == "__main__":
    main()
