"""Our INT8, made from float TFLite files, against the INT8 twins that the same makers published.

    python -m benchmarks.quantization.int8_vendor_twins [--shared-data ../shared/data] [--rows 10000]

MLPerf Tiny's four networks and two of TFLite Micro. Both INT8 models answer the same rows, ours in ONNX Runtime and the
maker's in LiteRT; rows that calibrate ours are never evaluated. Loss, in points of 100:

    accuracy     what INT8 answers wrongly and float rightly, net (labels exist)
    agreement    rows where INT8 chooses another class than float does (no labels)
    score        how far the mean reconstruction error of the anomaly detector moves, in percent of float's
    sine         growth of the mean error against the sine that the network learned, in percent of its amplitude

Pictures for visual wake words are CIFAR-10 enlarged and a few photographs; spoken digits and two words stand for
keywords, with the network's own features. The figure is the worst excess of our loss over the maker's.
"""

from __future__ import annotations

import argparse
import io
import wave
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image

from farrier_contracts import targets
from farrier_converters import model, passes

from ..figure import emit

TRAINING = Path("mlperf_tiny/benchmark/training")
MICRO = Path("tflite_micro/tensorflow/lite/micro/examples")
CALIBRATION_ROWS = 512
BATCH = 32
SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]

Rows = tuple[
    np.ndarray, np.ndarray, np.ndarray | None
]  # to calibrate with, to evaluate on, labels of the latter
Loss = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None], float]  # INT8, float, inputs, labels


@dataclass(frozen=True)
class Pair:
    """A float file, its maker's INT8 twin, the rows, and what a loss is."""

    name: str
    float_file: Path
    int8_file: Path
    rows: Callable[[Path, int], Rows]
    loss: Loss
    unit: str


def accuracy(ours: np.ndarray, reference: np.ndarray, _x: np.ndarray, labels: np.ndarray | None) -> float:
    right = [(scores.argmax(1) == labels).mean() for scores in (reference, ours)]
    return 100 * float(right[0] - right[1])


def agreement(ours: np.ndarray, reference: np.ndarray, _x: np.ndarray, _labels: np.ndarray | None) -> float:
    return 100 * float((ours.argmax(1) != reference.argmax(1)).mean())


def score(ours: np.ndarray, reference: np.ndarray, x: np.ndarray, _labels: np.ndarray | None) -> float:
    errors = [np.square(y - x).mean() for y in (ours, reference)]
    return 100 * float(abs(errors[0] - errors[1]) / errors[1])


def sine(ours: np.ndarray, reference: np.ndarray, x: np.ndarray, _labels: np.ndarray | None) -> float:
    errors = [np.abs(y - np.sin(x)).mean() for y in (ours, reference)]
    return 100 * float(errors[0] - errors[1])


def cifar(data: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Seeded pictures [count, 32, 32, 3] uint8 and their labels."""
    with zipfile.ZipFile(data / "cifar10_jpg" / "cifar10_jpg_train_10000.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        chosen = [names[i] for i in np.random.default_rng(7).permutation(len(names))[:count]]
        pictures = [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in chosen]
    return np.stack(pictures), np.array([classes.index(name.split("/")[1]) for name in chosen])


def classification(data: Path, count: int) -> Rows:
    pictures, labels = cifar(data, count + CALIBRATION_ROWS)
    raw = pictures.astype(np.float32)
    return raw[:CALIBRATION_ROWS], raw[CALIBRATION_ROWS:], labels[CALIBRATION_ROWS:]


def wake_words(data: Path, count: int) -> Rows:
    pictures, _ = cifar(data, min(count, 6000) + CALIBRATION_ROWS)
    images = [Image.fromarray(p) for p in pictures]
    photographs = [p for p in sorted((data / "coral").rglob("*")) if p.suffix in (".bmp", ".jpg")]
    photographs += sorted((data / MICRO / "person_detection" / "testdata").glob("*.bmp"))
    images += [Image.open(path) for path in photographs]
    scaled = np.stack([np.asarray(i.convert("RGB").resize((96, 96)), np.float32) / 255 for i in images])
    return scaled[:CALIBRATION_ROWS], scaled[CALIBRATION_ROWS:], None


def anomalies(data: Path, _count: int) -> Rows:
    """One clip: the windows of its first half calibrate, those of its second half are evaluated."""
    (path,) = (data / "mlperf_tiny").rglob("normal_id_01_00000000_hist_librosa.bin")
    frames = np.fromfile(path, np.float32).reshape(200, 128)
    windows = np.stack([frames[i : i + 5].ravel() for i in range(196)])
    return windows[:96], windows[100:], None  # the windows between share frames with both


def keywords(data: Path, count: int) -> Rows:
    clips = []
    with zipfile.ZipFile(next((data / "fsdd").rglob("*.zip"))) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".wav"))
        for index in np.random.default_rng(7).permutation(len(names)):
            clips.append(_samples(io.BytesIO(archive.read(names[index])), twice=True))
    clips += [
        _samples(path) for path in sorted((data / MICRO / "micro_speech/testdata").glob("*_1000ms.wav"))
    ]
    features = np.stack([mfcc(clip) for clip in clips])[..., None]
    return features[:256], features[256:][-count:], None


def _samples(source: Path | io.BytesIO, *, twice: bool = False) -> np.ndarray:
    """One second at 16 kHz, scaled to a peak of 1; `twice` brings 8 kHz there."""
    with wave.open(str(source) if isinstance(source, Path) else source) as file:
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)
    if twice:
        at = np.arange(2 * len(values)) / 2
        values = np.interp(at, np.arange(len(values)), values)
    values = np.pad(values[:16000], (0, max(0, 16000 - len(values))))
    return values / max(np.abs(values).max(), 1)


def mfcc(clip: np.ndarray) -> np.ndarray:
    """The benchmark's features [49, 10]: 30 ms windows each 20 ms, 40 mel bands from 20 to 4000 Hz, 10 of a DCT-II."""
    window, step, size, bands = 480, 320, 512, 40
    frames = np.stack([clip[i * step : i * step + window] for i in range(49)])
    spectrum = np.abs(
        np.fft.rfft(frames * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)), size)
    )
    mel = 1127 * np.log1p(np.arange(1, size // 2 + 1) * 16000 / size / 700)
    edges = np.linspace(1127 * np.log1p(20 / 700), 1127 * np.log1p(4000 / 700), bands + 2)
    up = (mel[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - mel[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0, np.minimum(up, down))
    energies = np.log(spectrum[:, 1:] @ weights + 1e-6)
    k, n = np.arange(10)[:, None], np.arange(bands)
    basis = np.cos(np.pi * k * (2 * n + 1) / (2 * bands)) * np.sqrt(2 / bands)
    return (energies @ basis.T).astype(np.float32)


def angles(_data: Path, _count: int) -> Rows:
    calibration = np.random.default_rng(7).uniform(0, 2 * np.pi, (500, 1))
    return calibration.astype(np.float32), np.linspace(0, 2 * np.pi, 101, dtype=np.float32)[:, None], None


def digits(data: Path, _count: int) -> Rows:
    """Ten digits moved by a pixel each way: the first five calibrate, the others are evaluated."""
    folder = data / MICRO / "mnist_lstm" / "samples"
    images = [
        np.asarray(Image.open(folder / f"sample{d}.png").convert("L"), np.float32) / 255 for d in range(10)
    ]
    moved = [np.stack([np.roll(image, shift, (0, 1)) for shift in SHIFTS]) for image in images]
    return np.concatenate(moved[:5]), np.concatenate(moved[5:]), np.repeat(np.arange(5, 10), len(SHIFTS))


def _trained(task: str, name: str) -> Path:
    return TRAINING / task / "trained_models" / name


PAIRS = (
    Pair(
        "image classification",
        _trained("image_classification", "pretrainedResnet.tflite"),
        _trained("image_classification", "pretrainedResnet_quant.tflite"),
        classification,
        accuracy,
        "accuracy",
    ),
    Pair(
        "visual wake words",
        _trained("visual_wake_words", "vww_96_float.tflite"),
        _trained("visual_wake_words", "vww_96_int8.tflite"),
        wake_words,
        agreement,
        "agreement",
    ),
    Pair(
        "anomaly detection",
        _trained("anomaly_detection", "ad01_fp32.tflite"),
        _trained("anomaly_detection", "ad01_int8.tflite"),
        anomalies,
        score,
        "score",
    ),
    Pair(
        "keyword spotting",
        _trained("keyword_spotting", "kws_ref_model_float32.tflite"),
        _trained("keyword_spotting", "kws_ref_model.tflite"),
        keywords,
        agreement,
        "agreement",
    ),
    Pair(
        "hello world",
        MICRO / "hello_world/models/hello_world_float.tflite",
        MICRO / "hello_world/models/hello_world_int8.tflite",
        angles,
        sine,
        "sine",
    ),
    Pair(
        "mnist lstm",
        MICRO / "mnist_lstm/trained_lstm.tflite",
        MICRO / "mnist_lstm/trained_lstm_int8.tflite",
        digits,
        accuracy,
        "accuracy",
    ),
)


def our_int8(source: model.Model, calibration: np.ndarray) -> model.Model:
    """Clean, fuse, quantize with defaults, for this processor's arithmetic."""
    name = source.inputs[0].name
    context = passes.Context(
        targets.host().toolchains[0].arithmetic,
        lambda: ({name: calibration[i : i + BATCH]} for i in range(0, len(calibration), BATCH)),
    )
    for step in ("clean", "fuse", "int8"):
        technique = passes.get(step)
        source = technique.run(source, technique.options(), context)
    return source


def run_onnx(graph: model.Model, rows: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph.proto.SerializeToString(), options, ["CPUExecutionProvider"])
    name = graph.inputs[0].name
    parts = [session.run(None, {name: rows[i : i + BATCH]})[0] for i in range(0, len(rows), BATCH)]
    return np.concatenate([np.asarray(part) for part in parts])


def run_litert(path: Path, rows: np.ndarray) -> np.ndarray:
    """Rows one by one; integers at both ends are brought to and from float with the file's own scales."""
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(model_path=str(path), num_threads=1)
    engine.allocate_tensors()
    (into,), (out,) = engine.get_input_details(), engine.get_output_details()
    results = []
    for row in rows:
        engine.reset_all_variables()
        value = row[None]
        if np.issubdtype(into["dtype"], np.integer):
            scale, zero = into["quantization"]
            limits = np.iinfo(into["dtype"])
            value = np.clip(np.rint(value / scale) + zero, limits.min, limits.max).astype(into["dtype"])
        engine.set_tensor(into["index"], value)
        engine.invoke()
        result = engine.get_tensor(out["index"])
        if np.issubdtype(out["dtype"], np.integer):
            scale, zero = out["quantization"]
            result = (result.astype(np.float32) - zero) * scale
        results.append(result)
    return np.concatenate(results)


def signal_to_noise(ours: np.ndarray, reference: np.ndarray) -> float:
    """Decibels of the float output over its distance from INT8."""
    noise = np.square(ours - reference).mean()
    return float(10 * np.log10(np.square(reference).mean() / max(noise, 1e-20)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--shared-data", type=Path, default=Path(__file__).resolve().parents[3] / "shared" / "data"
    )
    parser.add_argument("--rows", type=int, default=9_488, help="most rows to evaluate on")
    arguments = parser.parse_args()
    data, excesses = arguments.shared_data, []
    print(
        f"{'network':22}{'loss in':12}{'rows':>6}{'ours':>9}{'maker':>9}{'excess':>9}   SNR ours, maker (dB)"
    )
    for pair in PAIRS:
        if not (data / pair.float_file).exists():
            print(f"{pair.name:22}left out: not in {data}")
            continue
        calibration, rows, labels = pair.rows(data, arguments.rows)
        source = model.load(data / pair.float_file)
        reference = run_onnx(source, rows)
        ours = run_onnx(our_int8(source, calibration), rows)
        maker = run_litert(data / pair.int8_file, rows)
        losses = [pair.loss(y, reference, rows, labels) for y in (ours, maker)]
        excesses.append(losses[0] - losses[1])
        noise = [signal_to_noise(y, reference) for y in (ours, maker)]
        print(
            f"{pair.name:22}{pair.unit:12}{len(rows):6}{losses[0]:9.3f}{losses[1]:9.3f}{excesses[-1]:9.3f}"
            f"   {noise[0]:.1f}, {noise[1]:.1f}"
        )
    print(f"target arithmetic: {targets.host().name}")
    emit("int8_vendor_twins_worst_excess", max(excesses), goal=0.0, unit="points", at_most=True)


if __name__ == "__main__":
    main()
