"""INT8 TFLite against the same scales in ONNX Runtime: answers in XNNPACK, and the task's score in other kernels.

    python -m benchmarks.tflite.int8 [--shared-data ../shared/data] [--nets resnet20,ultraface] [--kernels builtin]

Nets and rows are those of the zoo. ONNX Runtime computes with unsigned activations, which is exact on processors with
VNNI. First, for each net, the share of output values within one quantum between it and XNNPACK on 64 rows at most; then
the score of each set of kernels on all rows. A quantum is the step of the integers that an output is made of, or, where
it is computed in floats, a 256th of what the float network's output spans. The figure is the largest difference of a
score from ONNX Runtime's, in points of 100; the shares are printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from farrier_converters import model
from farrier_converters.quantize.recentre import unsigned
from farrier_converters.tflite.file import read

from .. import zoo
from ..figure import emit
from ..zoo.net import Net, points, runner
from ..zoo.store import Store
from .litert import engine, file_of, quantized

ROOT = Path(__file__).resolve().parents[2]
NETS = ("resnet20", "resnet8", "wake-words", "anomaly", "ultraface")
SHARED_ROWS = 64
GOAL = 0.3  # points
WANTED_SHARE = 0.999
LIMIT = 1 << 30  # bytes of a file


def compared(net: Net, kernels: list[str], folder: Path) -> tuple[float, dict[str, float]]:
    """Return the share of values within one quantum in XNNPACK, and the scores by what computed them."""
    source = model.load(net.path)
    rows = net.stacked()
    signed = quantized(source, rows)
    path = folder / f"{net.name}.onnx"
    model.save(unsigned(signed), path)
    reference, original = runner(path), runner(net.path)
    content, options = file_of(signed)
    names = [output.name for output in source.outputs]
    engines = {name: engine(content, options, names, kernels=name) for name in ("xnnpack", *kernels)}
    steps = quanta(content, folder)
    near: list[np.ndarray] = []
    for feeds in rows[: -(-SHARED_ROWS // net.batch)]:
        answers = zip(names, engines["xnnpack"](feeds), reference(feeds), original(feeds), strict=True)
        near += [
            (np.abs(a - b) <= 1.01 * (steps.get(name) or np.ptp(f) / 256)).ravel()
            for name, a, b, f in answers
        ]
    scores = {"float": original, "onnxruntime": reference, **engines}
    return float(np.concatenate(near).mean()), {name: points(net.play(run)) for name, run in scores.items()}


def quanta(content: bytes, folder: Path) -> dict[str, float]:
    """Return the step of each output that a file makes of integers alone, by name."""
    path = folder / "quanta.tflite"
    path.write_bytes(content)
    file = read(path, max_bytes=LIMIT)
    made = {operator.outputs[0]: operator for operator in file.operators}
    steps = {}
    for index in file.outputs:
        operator = made[index]
        if operator.name == "DEQUANTIZE":
            steps[file.tensors[index].name] = float(file.tensors[operator.inputs[0]].scales[0])
    return steps


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--cache", type=Path, default=None)
    arguments.add_argument("--nets", default=",".join(NETS))
    arguments.add_argument("--kernels", default="builtin", help="besides xnnpack: builtin, reference (slow)")
    given = arguments.parse_args()
    store = Store(given.shared_data) if given.cache is None else Store(given.shared_data, given.cache)
    worst, shares = 0.0, []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.nets.split(","):
            share, scores = compared(zoo.load(name, store), given.kernels.split(","), Path(folder))
            shares.append(share)
            worst = max(worst, *(abs(s - scores["onnxruntime"]) for n, s in scores.items() if n != "float"))
            listed = "  ".join(f"{kind} {score:.2f}" for kind, score in scores.items())
            print(f"{name:12} within one quantum {share:.4%}   {listed}", flush=True)
    print(f"least share within one quantum {min(shares):.4%}, wanted {WANTED_SHARE:.1%}")
    emit("tflite_int8_score_difference", worst, goal=GOAL, unit="points", at_most=True)


if __name__ == "__main__":
    main()
