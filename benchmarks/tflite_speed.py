"""Our TFLite files against those of TensorFlow's converter, for the same networks, in LiteRT with one thread.

    python benchmarks/tflite_speed.py [--shared-data ../shared/data] [--rounds 30] [--calls 20] [--peers]

MLPerf Tiny's networks were published as float and as INT8 files made by TensorFlow's converter: ours come from the
float files, with the same kind of ends as the file that they are timed against. UltraFace's maker published a float
file.
With `--peers`, onnx2tf and ai-edge-quantizer make INT8 files of ResNet20 and UltraFace too (`make onnx2tf`). The
files take turns. The figure is the geometric mean of their times over ours; where both hold the same operators, the
ratio is one but for noise.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figure import emit
from int8_over_fp32 import resnet20
from peers import PEERS, PeerFailure
from tflite_nets import WHOLE, XNNPACK, file_of, floats, milliseconds, quantized

from farrier_contracts.targets import Arithmetic
from farrier_converters import model
from farrier_converters.tflite.file import read

ROOT = Path(__file__).resolve().parent.parent
TRAINING = Path("mlperf_tiny/benchmark/training")
ULTRAFACE = Path("ultraface")
ROWS = 16  # calibrate; random ones, since this is about time
GOAL = 1.0
LIMIT = 1 << 30  # bytes of a peer's file


@dataclass(frozen=True)
class Pair:
    """A float model, and a file that others made of it."""

    name: str
    source: Path
    theirs: Path
    integers: bool


def _tiny(task: str, source: str, integers: str) -> Iterator[Pair]:
    folder = TRAINING / task / "trained_models"
    yield Pair(f"{task} float", folder / source, folder / source, integers=False)
    yield Pair(f"{task} INT8", folder / source, folder / integers, integers=True)


PAIRS = (
    *_tiny("image_classification", "pretrainedResnet.tflite", "pretrainedResnet_quant.tflite"),
    *_tiny("visual_wake_words", "vww_96_float.tflite", "vww_96_int8.tflite"),
    *_tiny("anomaly_detection", "ad01_fp32.tflite", "ad01_int8.tflite"),
    Pair(
        "ultraface float",
        ULTRAFACE / "tflite" / "pretrained" / "version-RFB-320_without_postprocessing.tflite",
        ULTRAFACE / "tflite" / "pretrained" / "version-RFB-320_without_postprocessing.tflite",
        integers=False,
    ),
)


def ours(source: model.Model, arithmetic: Arithmetic | None) -> bytes:
    """Return our file, of floats, or in the integers of an arithmetic."""
    if arithmetic is None:
        return file_of(floats(source))[0]
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
        "ultraface": data / ULTRAFACE / "models" / "onnx" / "version-RFB-320.onnx",
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
        theirs = read(out, max_bytes=LIMIT)
        integers = theirs.tensors[theirs.inputs[0]].dtype == "int8"
        yield f"{name} INT8 of onnx2tf", ours(source, WHOLE if integers else XNNPACK), out.read_bytes()


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--rounds", type=int, default=30)
    arguments.add_argument("--calls", type=int, default=20)
    arguments.add_argument("--peers", action="store_true")
    given = arguments.parse_args()
    data, ratios = given.shared_data, []
    with tempfile.TemporaryDirectory() as name:
        files = [
            (
                p.name,
                ours(model.load(data / p.source), WHOLE if p.integers else None),
                (data / p.theirs).read_bytes(),
            )
            for p in PAIRS
        ]
        files += against_peers(data, Path(name)) if given.peers else []
    for name, mine, theirs in files:
        times = milliseconds({"ours": mine, "theirs": theirs}, rounds=given.rounds, calls=given.calls)
        ratios.append(times["theirs"] / times["ours"])
        print(f"{name:32} ours {times['ours']:.3f} ms  theirs {times['theirs']:.3f} ms  {ratios[-1]:.2f}x")
    emit("tflite_speed", float(np.exp(np.mean(np.log(ratios)))), goal=GOAL, unit="x speed")


if __name__ == "__main__":
    main()
