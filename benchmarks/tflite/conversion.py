"""How long it takes to make an INT8 TFLite file of UltraFace: clean, fuse, calibrate on 64 rows, quantize, write.

    python -m benchmarks.tflite.conversion [--shared-data ../shared/data] [--rows 64]

Rows are random: this is about time. The figure is the time of the whole way on the clock, without starting Python.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from farrier_converters import model

from ..figure import emit
from .litert import file_of, quantized

ROOT = Path(__file__).resolve().parents[2]
GOAL_S = 10.0


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rows", type=int, default=64)
    given = arguments.parse_args()
    path = given.shared_data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx"
    rng = np.random.default_rng(0)
    rows = [{"input": rng.normal(size=(1, 3, 240, 320)).astype(np.float32)} for _ in range(given.rows)]
    start = time.perf_counter()
    graph = quantized(model.load(path), rows)
    middle = time.perf_counter()
    content, _ = file_of(graph)
    end = time.perf_counter()
    print(
        f"quantized in {middle - start:.2f} s, converted and written in {end - middle:.2f} s: {len(content)} bytes"
    )
    emit("ultraface_to_int8_tflite", end - start, goal=GOAL_S, unit="s", at_most=True)


if __name__ == "__main__":
    main()
