"""Quantization-aware training of a ResNet20 to 4-bit weights and activations.

    python examples/qat.py resnet20.onnx cifar10_jpg_train_10000.zip resnet20-w4a4.onnx

The first file comes from examples/resnet20.py, the second holds the pictures as train/CLASS/NUMBER.jpg. Two epochs
over 4,000 pictures take a few minutes of one processor core; more epochs and all pictures win more.
"""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.passes.qat import QatOptions, train
from farrier_converters.training.data import Rows

TRAIN, TEST = 4000, 2000


def pictures(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded pictures [N, 3, 32, 32], normalised, and their classes."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[1] for name in names})
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[: TRAIN + TEST]]
        images = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in names])
    normal = (images / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    labels = np.array([classes.index(name.split("/")[1]) for name in names])
    return normal.transpose(0, 3, 1, 2).astype(np.float32), labels


def main() -> None:
    """Train the network named first on the pictures named second, and write it to the third name."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    network = model.load(Path(sys.argv[1]))
    images, labels = pictures(Path(sys.argv[2]))
    data = Rows({"images": images[:TRAIN]}, labels[:TRAIN], batch=64)
    context = passes.Context(
        calibration=lambda: ({"images": images[i : i + 64]} for i in range(0, 512, 64)),
        training=data,
        progress=lambda stage, share: print(f"\r{stage} {share:4.0%}", end="", flush=True),
    )
    bits = Int8Options(weight_bits=4, activation_bits=4, wide_edges=True)
    trained = train(network, QatOptions(int8=bits, fit={"epochs": 2, "learning_rate": 0.01}), context)
    model.save(trained.model, Path(sys.argv[3]))
    moved = np.median(np.abs(np.concatenate([m.reshape(-1) for m in trained.moved.values()])))
    print(f"\nmean loss by epoch: {trained.history.losses}; scales moved by a median of {moved:.1%}")
    for name, found in (("float", network), ("trained", trained.model)):
        scores = run.once(found.proto, {"images": images[TRAIN:]})[0]
        print(f"{name}: {(scores.argmax(1) == labels[TRAIN:]).mean():.2%} of {TEST} other pictures right")


if __name__ == "__main__":
    main()
