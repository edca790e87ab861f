"""INT8 TFLite networks and rows to run them on, for the benchmarks of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from int8_vendor_twins import PAIRS
from PIL import Image

from farrier_converters.tflite.file import Tensor, TfliteFile, read

MAX_BYTES = 1 << 30
CORAL = (
    "mobilenet_v1_0.25_128_quant.tflite",
    "mobilenet_v2_1.0_224_quant.tflite",
    "deeplabv3_mnv2_dm05_pascal_quant.tflite",
)
PHOTOGRAPHS = ("cat.bmp", "bird.bmp", "parrot.jpg", "grace_hopper.bmp", "hot_dog.jpg")


@dataclass(frozen=True)
class Network:
    """A file with one input, and rows in its type: the first half real, the others random over the whole range."""

    name: str
    file: TfliteFile
    rows: list[np.ndarray]


def networks(data: Path, count: int) -> Iterator[Network]:
    """Yield what others made: MLPerf Tiny's files (from their makers) and Coral's; `count` real rows of each."""
    for pair in PAIRS:
        file = read(data / pair.int8_file, max_bytes=MAX_BYTES)
        _, rows, _ = pair.rows(data, count)
        yield Network(pair.name, file, with_random(file, stored(_input(file), rows[:count])))
    for name in CORAL:
        file = read(data / "coral" / name, max_bytes=MAX_BYTES)
        _, height, width, _ = _input(file).shape
        pictures = [_picture(data / "coral" / p, (width, height)) for p in PHOTOGRAPHS[:count]]
        yield Network(name.partition(".")[0], file, with_random(file, np.stack(pictures)))


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
