"""What learned rounding wins over rounding to nearest at few bits, on calibration data without labels.

    python -m benchmarks.quantization.adaround [--shared-data ../shared/data] [--iterations 400]

ResNet20 on cifar10_jpg, 4-bit weights of every layer (8-bit activations), and 3-bit; accuracy on 4,000 pictures in ONNX
Runtime's integers, with the same ranges and weight scales on both sides. Calibrated on 256 other pictures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from farrier_converters import passes
from farrier_converters.passes.adaround import AdaRoundOptions
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.passes.qat import prepare

from ..cifar import ROOT, TARGET, accuracy, pictures, resnet20
from ..figure import emit

ROWS, TEST = 256, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--iterations", type=int, default=400)
    arguments = parser.parse_args()
    source, (images, labels) = resnet20(arguments.shared_data), pictures(arguments.shared_data)
    order = np.random.default_rng(0).permutation(len(images))
    rows = images[order[:TEST]], labels[order[:TEST]]
    calibration = images[order[TEST : TEST + ROWS]]
    context = passes.Context(
        TARGET, lambda: ({"images": calibration[i : i + 32]} for i in range(0, ROWS, 32))
    )
    exact = accuracy(source, *rows)
    gains = []
    for bits in (4, 3):
        options = Int8Options(weight_bits=bits)
        started = time.perf_counter()
        nearest = accuracy(prepare(source, options, context)[0].integers(), *rows)
        rounding = {"iterations": arguments.iterations}
        learned = passes.get("adaround").run(source, AdaRoundOptions(options, rounding), context)
        gains.append(accuracy(learned, *rows) - nearest)
        print(
            f"W{bits}A8: float {exact:.2f}, nearest {nearest:.2f}, learned {nearest + gains[-1]:.2f} "
            f"({gains[-1]:+.2f}; {time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    emit("adaround_gain_w4", gains[0], goal=0.3, unit="points")


if __name__ == "__main__":
    main()
