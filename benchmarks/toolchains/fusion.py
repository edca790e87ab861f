"""How much faster a graph is after `clean` and `fuse`, with the engine's own optimizer off and on.

    python -m benchmarks.toolchains.fusion [--shared-data ../shared/data] [--rounds 40]

ONNX Runtime, one thread, batch 1, random inputs: the graph as it came and the fused one run in turns, and the median of
the ratios counts. The networks are as their exporters wrote them: ResNet20 with its batch norms, UltraFace, the nets
of MLPerf Tiny (imported from float TFLite), and, where torch is installed, a transformer, a relative of MobileNetV3 and
one of ConvNeXt. What each rule did is printed. Two figures: the geometric mean of the speed-ups with the optimizer off,
and the least speed-up with it on, where 1 means "as fast".
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from farrier_converters import passes
from farrier_converters.fusion import Log
from farrier_converters.graph import run
from farrier_converters.model import Model, from_proto, load

from ..figure import emit
from ..quantization.int8_over_fp32 import resnet20

ROOT = Path(__file__).resolve().parents[2]
GOAL_OFF, GOAL_ON = 1.1, 0.97  # the second leaves 3 % for the noise of timing
NEWEST = 20
TINY = {
    "vww": "visual_wake_words/trained_models/vww_96_float.tflite",
    "resnet8": "image_classification/trained_models/pretrainedResnet.tflite",
    "autoencoder": "anomaly_detection/trained_models/ad01_fp32.tflite",
}


def subjects(data: Path, folder: Path) -> Iterator[tuple[str, Model]]:
    """Yield what is there, by name."""
    paths = {
        "ultraface": data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx",
        **{name: data / "mlperf_tiny" / "benchmark" / "training" / path for name, path in TINY.items()},
    }
    if (data / "resnet_cifar10_pth").is_dir():
        paths["resnet20"] = resnet20(data, folder)
    for name, path in paths.items():
        if path.exists():
            yield name, load(path)
        else:
            print(f"{name:14} left out: not in {data}")
    if importlib.util.find_spec("torch") is None:
        print("the networks of torch are left out: it is not installed")
        return
    from . import torch_networks

    for name, (build, shape) in torch_networks.SUBJECTS.items():
        yield name, from_proto(torch_networks.export(build, shape, opset=17), name)


def fused(model: Model) -> tuple[Model, Log]:
    log = Log()
    context = passes.Context(log=log)
    for name, options in (("clean", {}), ("fuse", {"newest": NEWEST})):
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
    return model, log


def session(proto: onnx.ModelProto, *, optimize: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def speedup(before: Model, after: Model, *, optimize: bool, rounds: int) -> tuple[float, float, float]:
    """Run both graphs in turns; return the median of the ratios, and the median times in milliseconds."""
    feeds = run.sample(before)
    sessions = [session(model.proto, optimize=optimize) for model in (before, after)]
    times: list[list[float]] = [[], []]
    for number in range(rounds + 3):
        for one, found in zip(sessions, times, strict=True):
            start = time.perf_counter()
            one.run(None, feeds)
            if number >= 3:
                found.append(1e3 * (time.perf_counter() - start))
    ratio = float(np.median(np.divide(times[0], times[1])))
    return ratio, float(np.median(times[0])), float(np.median(times[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()
    off, on = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name, model in subjects(arguments.shared_data, Path(folder)):
            start = time.perf_counter()
            made, log = fused(model)
            took = time.perf_counter() - start
            feeds = run.sample(model)
            if not run.same(run.once(made.proto, feeds), run.once(model.proto, feeds), tolerance=1e-4):
                raise SystemExit(f"{name}: the fused graph computes something else")
            print(
                f"{name:14} {len(model.proto.graph.node)} -> {len(made.proto.graph.node)} nodes in {took:.2f} s"
            )
            for rule, count in Counter(a.rule for a in log.applications).items():
                print(f"    {count:4} x {rule}")
            for optimize, ratios in ((False, off), (True, on)):
                ratio, old, new = speedup(model, made, optimize=optimize, rounds=arguments.rounds)
                ratios.append(ratio)
                print(
                    f"    optimizer {'on ' if optimize else 'off'} {old:8.3f} -> {new:8.3f} ms, {ratio:.2f}x"
                )
    emit("fusion_optimizer_on", min(on), goal=GOAL_ON, unit="x speed, the least")
    emit("fusion_optimizer_off", float(np.exp(np.mean(np.log(off)))), goal=GOAL_OFF, unit="x speed")


if __name__ == "__main__":
    main()
