"""Quantization-aware training in 20 lines: a ResNet20 with 4-bit weights and activations.

    python examples/qat.py resnet20.onnx cifar10_jpg_train_10000.zip resnet20-w4a4.onnx [--epochs 2] [--pictures 4000]

The first file comes from examples/resnet20.py, the second holds the pictures as .../CLASS/NUMBER.jpg. Two epochs over
4,000 pictures take a few minutes of one processor core; more epochs and all pictures win more. Half as many other
pictures judge the network in float, rounded without training, and trained.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.passes.qat import QatOptions, train
from farrier_converters.training.data import Rows

BATCH, CALIBRATION = 64, 512  # rows
W4A4 = Int8Options(weight_bits=4, activation_bits=4, wide_edges=True)  # first and last layer keep 8 bits


def pictures(path: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded pictures [count, 3, 32, 32], normalised, and their classes [count]."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        classes = sorted({name.split("/")[-2] for name in names})
        names = [names[i] for i in np.random.default_rng(0).permutation(len(names))[:count]]
        images = np.stack([np.asarray(Image.open(io.BytesIO(archive.read(n))).convert("RGB")) for n in names])
    normal = (images / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    labels = np.array([classes.index(name.split("/")[-2]) for name in names])
    return normal.transpose(0, 3, 1, 2).astype(np.float32), labels


def main() -> None:
    """Train the network named first on the pictures named second, and write it to the third name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("network", "archive", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=4000, help="to train on")
    given = parser.parse_args()
    images, labels = pictures(given.archive, given.pictures * 3 // 2)
    rows, test = images[: given.pictures], images[given.pictures :]
    classes, wanted = labels[: given.pictures], labels[given.pictures :]

    # the 20 lines: what calibrates, what trains, how many bits, how long
    network = model.load(given.network)
    name = network.inputs[0].name
    context = passes.Context(
        calibration=lambda: (
            {name: rows[i : i + BATCH]} for i in range(0, min(CALIBRATION, len(rows)), BATCH)
        ),
        training=Rows({name: rows}, classes, batch=BATCH),
        progress=lambda stage, share: print(f"\r{stage:10}{share:5.0%}", end="", flush=True),
    )
    options = QatOptions(int8=W4A4, fit={"epochs": given.epochs})
    trained = train(network, options, context)
    model.save(trained.model, given.out)

    rounded = network
    for step, settings in (("clean", {}), ("fuse", {}), ("int8", vars(W4A4))):
        technique = passes.get(step)
        rounded = technique.run(rounded, technique.options(**settings), context)
    moved = np.median(np.abs(np.concatenate([m.reshape(-1) for m in trained.moved.values()])))
    print(f"\nmean loss by epoch: {trained.history.losses}; scales moved by a median of {moved:.1%}")
    for what, found in (("float", network), ("rounded", rounded), ("trained", trained.model)):
        right = (run.once(found.proto, {name: test})[0].argmax(1) == wanted).mean()
        print(f"{what:8} {right:.2%} of {len(test)} other pictures right")


if __name__ == "__main__":
    main()
