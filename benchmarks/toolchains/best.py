"""The fastest INT8 artifact against the fastest float one, whatever the engine, on this processor.

    python -m benchmarks.toolchains.best [--shared-data ../shared/data] [--nets resnet20,ultraface] [--rounds 15]

Convolution nets at batch 1, one thread. Every toolchain of this machine's target whose engine is installed builds the
float form and each INT8 form, as `farrier optimize` does; all artifacts of a net are timed in turns. Calibration rows
are random: this is about time, not accuracy. The figure is the geometric mean of best float over best INT8.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from farrier.optimization.build import apply
from farrier_contracts import targets
from farrier_contracts.errors import FarrierError
from farrier_converters import compilers, measure, model, passes
from farrier_converters.measure.engines import missing
from farrier_converters.search import plan

from ..figure import emit
from ..quantization.int8_over_fp32 import ROOT, SUBJECTS, rows

TINY = Path("mlperf_tiny/benchmark/training")
MORE = {
    "resnet8": TINY / "image_classification/trained_models/pretrainedResnet.tflite",
    "wake-words": TINY / "visual_wake_words/trained_models/vww_96_float.tflite",
}
GOAL = 2.3
FLOAT, INTEGER = "fp32", "int8"


def contest(path: Path, folder: Path, settings: measure.LatencySettings) -> dict[str, dict[str, float]]:
    """Return medians in milliseconds by precision and candidate."""
    source = model.load(path)
    candidates = [
        c for c in plan(targets.host(), [FLOAT, INTEGER]) if missing(c.toolchain.answers_in) is None
    ]
    times: dict[str, dict[str, float]] = {FLOAT: {}, INTEGER: {}}
    statistics: dict[str, object] = {}
    with ExitStack() as stack:
        children = {}
        for candidate in candidates:
            context = passes.Context(
                candidate.toolchain.arithmetic, lambda: (rows(source, 1, seed) for seed in range(16))
            )
            place = folder / candidate.name
            place.mkdir(parents=True)
            try:
                graph, _ = apply(source, candidate, replace(context, statistics=statistics))
                made = compilers.get(candidate.toolchain.compiler).compile(graph, candidate.toolchain, place)
            except FarrierError as error:
                print(f"  {candidate.name:18} {error}")
                continue
            child = measure.Child(made.path, candidate.toolchain.engine, options=made.options)
            children[candidate.name] = stack.enter_context(child)
        found = measure.measure(children, rows(source, 1, 99), batch=1, settings=settings)
    for candidate in candidates:
        latency = found.get(candidate.name)
        if isinstance(latency, measure.Latency):
            times[candidate.precision][candidate.name] = latency.p50_ms
            print(f"  {candidate.name:18} {latency.p50_ms:8.3f} ms")
        elif latency is not None:
            print(f"  {candidate.name:18} {latency}")
    return times


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--nets", help="only these, separated by commas")
    arguments.add_argument("--rounds", type=int, default=15)
    given = arguments.parse_args()
    settings = measure.LatencySettings(rounds=given.rounds, most_rounds=max(given.rounds, 30))
    names = given.nets.split(",") if given.nets else [*SUBJECTS, *MORE]
    ratios = []
    with tempfile.TemporaryDirectory() as work:
        for name in names:
            folder = Path(work) / name
            folder.mkdir()
            path = (
                given.shared_data / MORE[name] if name in MORE else SUBJECTS[name](given.shared_data, folder)
            )
            if not path.exists():
                print(f"{name} left out: not in {given.shared_data}")
                continue
            print(name)
            times = contest(path, folder / "built", settings)
            best = {precision: min(found, key=lambda n: found[n]) for precision, found in times.items()}
            ratio = times[FLOAT][best[FLOAT]] / times[INTEGER][best[INTEGER]]
            print(f"  {best[INTEGER]} is {ratio:.2f}x as fast as {best[FLOAT]}")
            ratios.append(ratio)
    print(f"target: {targets.host().name}; lowest {min(ratios):.2f}x")
    emit("best_toolchain", float(np.exp(np.mean(np.log(ratios)))), goal=GOAL, unit="x speed")


if __name__ == "__main__":
    main()
