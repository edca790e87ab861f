"""How much faster the fastest INT8 is than the fastest float, of ONNX Runtime and LiteRT, on this processor.

    python benchmarks/int8_over_best_float.py [--shared-data ../shared/data] [--rounds 30] [--calls 10]

The convolution nets of `int8_over_fp32.py` at batch 1, one thread; the sessions take turns. Calibration rows are random:
this is about time. The figure is the geometric mean over nets of best float over best INT8.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from figure import emit
from int8_over_fp32 import SUBJECTS, rows
from tflite_nets import engine, file_of, floats, quantized
from zoo.net import runner

from farrier_contracts import targets
from farrier_converters import model, passes

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION, WARM = 8, 5
GOAL = 2.3

Run = Callable[[dict[str, np.ndarray]], object]


def sessions(path: Path, folder: Path) -> dict[str, Run]:
    """Open a net in both engines, in float and in INT8."""
    source = model.load(path)
    calibration = [rows(source, 1, seed) for seed in range(CALIBRATION)]
    names = [output.name for output in source.outputs]
    opened: dict[str, Run] = {}
    arithmetic = targets.host().toolchains[0].arithmetic
    context = passes.Context(arithmetic, lambda: iter(calibration))
    plain = floats(source)
    step = passes.get("int8")
    for name, graph in {
        "onnxruntime fp32": plain,
        "onnxruntime int8": step.run(plain, step.options(fit=True), context),
    }.items():
        saved = folder / f"{path.stem} {name}.onnx"
        model.save(graph, saved)
        opened[name] = runner(saved)
    for name, graph in {"litert fp32": plain, "litert int8": quantized(source, calibration)}.items():
        opened[name] = engine(*file_of(graph), names, kernels="xnnpack")
    return opened


def milliseconds(
    opened: dict[str, Run], feeds: dict[str, np.ndarray], rounds: int, calls: int
) -> dict[str, float]:
    """Return the lower quartile over rounds of the time per call; sessions take turns."""
    times: dict[str, list[float]] = {name: [] for name in opened}
    for run in opened.values():
        for _ in range(WARM):
            run(feeds)
    for _ in range(rounds):
        for name, run in opened.items():
            start = time.perf_counter()
            for _ in range(calls):
                run(feeds)
            times[name].append((time.perf_counter() - start) / calls * 1e3)
    return {name: float(np.quantile(found, 0.25)) for name, found in times.items()}


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--calls", type=int, default=10)
    given = arguments.parse_args()
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        for subject, find in SUBJECTS.items():
            try:
                path = find(given.shared_data, Path(name))
            except FileNotFoundError:
                path = Path("absent")
            if not path.exists():
                print(f"{subject:14} left out: not in {given.shared_data}")
                continue
            opened = sessions(path, Path(name))
            times = milliseconds(opened, rows(model.load(path), 1, 99), given.rounds, given.calls)
            best = {kind: min(t for n, t in times.items() if n.endswith(kind)) for kind in ("fp32", "int8")}
            ratios.append(best["fp32"] / best["int8"])
            listed = "  ".join(f"{n} {t:.3f} ms" for n, t in times.items())
            print(f"{subject:14} {listed}  {ratios[-1]:.2f}x", flush=True)
    emit("int8_over_best_float", float(np.exp(np.mean(np.log(ratios)))), goal=GOAL, unit="x speed")


if __name__ == "__main__":
    main()
