"""Our float TFLite files against those that TensorFlow's own converter made of the same networks, in LiteRT.

    python benchmarks/tflite_speed_float.py [--shared-data ../shared/data] [--rounds 15]

MLPerf Tiny's float networks, one of TFLite Micro, and UltraFace as its maker converted it. Each file is imported as an
ONNX graph and written again; both files answer the same noise, and their latencies are taken in turns, with one thread.
The figure is the geometric mean of their medians over ours.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from figure import emit

from farrier_converters.compilers.tflite import convert
from farrier_converters.graph import run
from farrier_converters.measure import Child, ChildSettings, EngineFailure, LatencySettings, measure
from farrier_converters.model import load
from farrier_converters.tflite.file import read
from farrier_converters.tflite.write import write

TRAINING = Path("mlperf_tiny/benchmark/training")
MICRO = Path("tflite_micro/tensorflow/lite/micro/examples")
NETWORKS = {
    "anomaly": TRAINING / "anomaly_detection/trained_models/ad01_fp32.tflite",
    "resnet8": TRAINING / "image_classification/trained_models/pretrainedResnet.tflite",
    "wake-words": TRAINING / "visual_wake_words/trained_models/vww_96_float.tflite",
    "sine": MICRO / "hello_world/models/hello_world_float.tflite",
    "ultraface": Path("ultraface/tflite/pretrained/version-RFB-320_without_postprocessing.tflite"),
}
MAX_BYTES = 1 << 28


def contest(path: Path, folder: Path, settings: LatencySettings) -> float:
    """Return their median latency over ours; prints both, and what both files consist of."""
    model = load(path)
    file, options = convert(model)
    ours = folder / "ours.tflite"
    ours.write_bytes(write(file))
    with ExitStack() as stack:
        children = {
            name: stack.enter_context(Child(source, "litert", ChildSettings(threads=1), options=given))
            for name, source, given in (("theirs", path, None), ("ours", ours, options))
        }
        found = measure(children, run.sample(model), batch=1, settings=settings)
    medians = {}
    for name, latency in found.items():
        if isinstance(latency, EngineFailure):
            raise latency
        medians[name] = latency.p50_ms
    for name, made in (("theirs", read(path, max_bytes=MAX_BYTES)), ("ours", file)):
        counts = Counter(operator.name for operator in made.operators)
        listed = ", ".join(f"{op} {n}" for op, n in counts.most_common())
        print(f"  {name:6} {medians[name]:8.4f} ms   {listed}")
    return medians["theirs"] / medians["ours"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=Path(__file__).parents[2] / "shared" / "data")
    arguments.add_argument("--rounds", type=int, default=15)
    given = arguments.parse_args()
    settings = LatencySettings(rounds=given.rounds, most_rounds=3 * given.rounds)
    ratios = {}
    with tempfile.TemporaryDirectory() as name:
        for network, path in NETWORKS.items():
            print(network)
            ratios[network] = contest(given.shared_data / path, Path(name), settings)
            print(f"  {ratios[network]:.3f}")
    emit(
        "tflite_speed",
        min(ratios.values()),
        goal=1.0,
        unit="times the speed of TensorFlow's converter, worst",
    )


if __name__ == "__main__":
    main()
