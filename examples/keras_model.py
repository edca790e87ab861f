"""Quantize a Keras model to INT8 and see what it costs.

    python examples/keras_model.py pretrainedResnet.h5 pictures.zip optimized --pictures 2000

The model is a Keras file (.h5, .keras) or a SavedModel folder, which TensorFlow reads (pip install
'farrier[tensorflow]'), or the float .tflite that was made from it, which needs nothing. The pictures lie in the zip as
.../CLASS/NAME.jpg, in the model's own size; the classes count in alphabetical order. Inputs are what the network was
trained on: here the raw values 0 to 255; with --scale 0.00392157 they range from 0 to 1.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import farrier
from farrier_converters import model


def read_pictures(path: Path, count: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded pictures, float32 [count, H, W, 3] as Keras lays them out, and their labels, int64 [count]."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".png")))
        classes = sorted({name.split("/")[-2] for name in names})
        chosen = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:count]]
        pictures = [np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in chosen]
    labels = np.array([classes.index(name.split("/")[-2]) for name in chosen])
    return np.stack(pictures).astype(np.float32) * scale, labels


def main() -> None:
    """Optimize the model named first with the pictures named second."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()

    pictures, labels = read_pictures(arguments.archive, arguments.pictures, arguments.scale)
    name = model.load(arguments.model).inputs[0].name
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pictures.npz"
        arrays: dict[str, Any] = {name: pictures, "labels": labels}
        np.savez(data, **arrays)
        # some rows calibrate, the others are evaluated
        result = farrier.optimize(arguments.model, data=data, max_drop="1%", out=arguments.out)

    for entry in result.candidates:
        kept = "delivered" if entry.kept else entry.reason
        if entry.latency is not None:
            figures = f"{entry.metric:8.2%} {entry.size_bytes:10,} bytes {entry.latency.p50_ms:8.3f} ms"
            print(f"{entry.name:16} {figures}  {kept}")
    print(f"report: {arguments.out / 'report.html'}")


if __name__ == "__main__":
    main()
