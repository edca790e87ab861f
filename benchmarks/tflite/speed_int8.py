"""Our INT8 TFLite files against those of TensorFlow's converter, for the same networks, in LiteRT with one thread.

    python -m benchmarks.tflite.speed_int8 [--shared-data ../shared/data] [--rounds 30] [--calls 20] [--peers]

MLPerf Tiny's networks were published as float and as INT8 files made by TensorFlow's converter: ours come from the
float files, with integers as ends, as theirs have. With `--peers`, onnx2tf and ai-edge-quantizer make INT8 files of
ResNet20 and UltraFace too (`make onnx2tf`); ours are those that a processor gets, with float ends. The files take
turns. The figure is the geometric mean of their times over ours; where both hold the same operators, the ratio is one
but for noise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from farrier_contracts.targets import Arithmetic
from farrier_converters import model

from ..figure import emit
from ..peers import PEERS, PeerFailure
from ..quantization.int8_over_fp32 import resnet20
from .litert import WHOLE, XNNPACK, file_of, milliseconds, quantized

ROOT = Path(__file__).resolve().parents[2]
TRAINING = Path("mlperf_tiny/benchmark/training")
ROWS = 16  # calibrate; random ones, since this is about time
GOAL = 1.0


PAIRS = {  # the float file, and the INT8 file that was made of it
    "image classification": (
        "image_classification/trained_models/pretrainedResnet.tflite",
        "image_classification/trained_models/pretrainedResnet_quant.tflite",
    ),
    "visual wake words": (
        "visual_wake_words/trained_models/vww_96_float.tflite",
        "visual_wake_words/trained_models/vww_96_int8.tflite",
    ),
    "anomaly detection": (
        "anomaly_detection/trained_models/ad01_fp32.tflite",
        "anomaly_detection/trained_models/ad01_int8.tflite",
    ),
}


def ours(source: model.Model, arithmetic: Arithmetic) -> bytes:
    """Return our file in the integers of an arithmetic."""
    rng = np.random.default_rng(0)
    rows = [
        {
            s.name: rng.normal(size=[max(size, 1) for size in s.shape]).astype(np.float32)
            for s in source.inputs
        }
        for _ in range(ROWS)
    ]
    return file_of(quantized(source, rows, arithmetic), arithmetic)[0]


def against_peers(data: Path, folder: Path) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield a name, our INT8 file and a peer's for networks that are no TFLite files yet."""
    sources = {
        "resnet20": resnet20(data, folder),
        "ultraface": data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx",
    }
    for name, path in sources.items():
        source = model.load(path)
        (spec,) = source.inputs
        rng = np.random.default_rng(0)
        rows = [{spec.name: rng.normal(size=(1, *spec.shape[1:])).astype(np.float32)} for _ in range(ROWS)]
        out = folder / f"{name}.tflite"
        try:
            PEERS["onnx2tf"].quantize(path, rows, out)
        except PeerFailure as failure:
            print(f"{name:32} left out: {failure}")
            continue
        yield f"{name}, onnx2tf", ours(source, XNNPACK), out.read_bytes()


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--calls", type=int, default=20)
    arguments.add_argument("--peers", action="store_true")
    given = arguments.parse_args()
    data, ratios = given.shared_data, []
    with tempfile.TemporaryDirectory() as folder:
        files = [
            (name, ours(model.load(data / TRAINING / source), WHOLE), (data / TRAINING / made).read_bytes())
            for name, (source, made) in PAIRS.items()
        ]
        files += against_peers(data, Path(folder)) if given.peers else []
    for name, mine, theirs in files:
        times = milliseconds({"ours": mine, "theirs": theirs}, rounds=given.rounds, calls=given.calls)
        ratios.append(times["theirs"] / times["ours"])
        print(f"{name:32} ours {times['ours']:.3f} ms  theirs {times['theirs']:.3f} ms  {ratios[-1]:.2f}x")
    emit("tflite_int8_speed", float(np.exp(np.mean(np.log(ratios)))), goal=GOAL, unit="x speed")


if __name__ == "__main__":
    main()
