"""INT8 TFLite networks and rows to run them on, for the benchmarks of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from farrier_contracts.targets import ARITHMETICS
from farrier_converters import passes
from farrier_converters.compilers.tflite import lower_model
from farrier_converters.model import Model, load
from farrier_converters.tflite.file import Tensor, TfliteFile, read

from ..cifar import pictures, resnet20
from ..quantization.int8_vendor_twins import BATCH, PAIRS

MAX_BYTES = 1 << 30
CORAL = (
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "deeplabv3_mnv2_dm05_pascal_quant.tflite",
)
CALIBRATION_ROWS = 128
PHOTOGRAPHS = ("cat.bmp", "bird.bmp", "parrot.jpg", "grace_hopper.bmp", "hot_dog.jpg")


@dataclass(frozen=True)
class Network:
    """A file with one input, and rows in its type: the first half real, the others random over the whole range."""

    name: str
    file: TfliteFile
    rows: list[np.ndarray]


def networks(data: Path, count: int) -> Iterator[Network]:
    """Yield INT8 networks with `count` real rows of each: ours, and those that others published."""
    yield from ours(data, count)
    yield from published(data, count)


def ours(data: Path, count: int) -> Iterator[Network]:
    """Yield what we make of float networks, for LiteRT: with integers inside and float ends."""
    faces = np.stack([_face(data / "coral" / name) for name in PHOTOGRAPHS])
    detector = load(data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx")
    yield _ours("ours: UltraFace RFB-320", detector, faces, faces[:count])
    images, _ = pictures(data)
    yield _ours("ours: ResNet20", resnet20(data), images[:CALIBRATION_ROWS], images[-count:])
    for pair in PAIRS:
        source = load(data / pair.float_file)
        if any(node.op_type == "LSTM" for node in source.proto.graph.node):
            continue
        calibration, rows, _ = pair.rows(data, count)
        yield _ours(f"ours: {pair.name}", source, calibration, rows[:count])


def _ours(name: str, source: Model, calibration: np.ndarray, rows: np.ndarray) -> Network:
    """Quantize with defaults and lower."""
    (spec,) = source.inputs
    size = BATCH if spec.shape[0] < 0 else 1
    context = passes.Context(
        ARITHMETICS["xnnpack"],
        lambda: ({spec.name: calibration[i : i + size]} for i in range(0, len(calibration), size)),
    )
    for step in ("clean", "fuse", "int8"):
        technique = passes.get(step)
        source = technique.run(source, technique.options(), context)
    lowered = lower_model(source)
    order = lowered.options.get("layouts", {}).get(spec.name, range(rows.ndim))
    return Network(name, lowered.file, with_random(lowered.file, rows.transpose(order)))


def published(data: Path, count: int) -> Iterator[Network]:
    """Yield what others made."""
    for pair in PAIRS:
        file = read(data / pair.int8_file, max_bytes=MAX_BYTES)
        _, rows, _ = pair.rows(data, count)
        yield Network(pair.name, file, with_random(file, stored(_input(file), rows[:count])))
    for name in CORAL:
        file = read(data / "coral" / name, max_bytes=MAX_BYTES)
        _, height, width, _ = _input(file).shape
        rows = [_picture(data / "coral" / p, (width, height)) for p in PHOTOGRAPHS[:count]]
        yield Network(name.removesuffix(".tflite"), file, with_random(file, np.stack(rows)))


def stored(tensor: Tensor, rows: np.ndarray) -> np.ndarray:
    """Return reals as a tensor holds them."""
    if tensor.dtype == "float32":
        return rows.astype(np.float32)
    limits = np.iinfo(tensor.dtype)
    quanta = np.rint(rows / tensor.scales[0]) + tensor.zero_points[0]
    return np.clip(quanta, limits.min, limits.max).astype(tensor.dtype)


def with_random(file: TfliteFile, real: np.ndarray) -> list[np.ndarray]:
    """Return real rows, and as many random ones."""
    tensor, rng = _input(file), np.random.default_rng(0)
    shape = (len(real), 1, *tensor.shape[1:])
    if tensor.dtype == "float32":
        random = rng.normal(size=shape).astype(np.float32) * real.std()
    else:
        limits = np.iinfo(tensor.dtype)
        random = rng.integers(limits.min, limits.max + 1, shape).astype(tensor.dtype)
    return [*real.reshape(shape), *random]


def _input(file: TfliteFile) -> Tensor:
    return file.tensors[file.inputs[0]]


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize(size), np.uint8)


def _face(path: Path) -> np.ndarray:
    """A photograph as UltraFace wants it: [3, 240, 320], about -1 to 1."""
    return ((_picture(path, (320, 240)).astype(np.float32) - 127) / 128).transpose(2, 0, 1)
