"""Pruned, taught by the original, and rounded to INT8 under one budget: a ResNet20 seven times smaller.

    python examples/all_three.py resnet20.onnx cifar10_jpg_train_10000.zip out [--max-size 150KB] [--max-drop 2%]
                                 [--epochs 10] [--pictures 6000]

The first file comes from examples/resnet20.py, the second holds the pictures as .../CLASS/NUMBER.jpg. INT8 alone makes
the network four times smaller, which misses the size that is asked for; so networks with fewer channels and blocks are
tried. What they cost is measured before any is trained; the largest one that is small enough is trained, here for a
few minutes of one processor core. Half as many other pictures judge the result. The same from a terminal:

    farrier optimize resnet20.onnx --train train.npz --data test.npz --max-size 150KB --max-drop 2% \\
        --augment crop:4,mirror -o out
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from qat import pictures

import farrier
from farrier_contracts.errors import BudgetError


def main() -> None:
    """Fit the network named first to a budget with the pictures named second; everything goes into the third name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("network", "archive", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--max-size", default="150KB")
    parser.add_argument("--max-drop", default="2%")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--pictures", type=int, default=6000, help="to train on")
    parser.add_argument("--precision", help="quantize in this one alone, like int8")
    parser.add_argument("--engine", help="only this one, like onnxruntime")
    given = parser.parse_args()
    images, labels = pictures(given.archive, given.pictures * 3 // 2)
    with tempfile.TemporaryDirectory() as folder:
        train, test = Path(folder) / "train.npz", Path(folder) / "test.npz"
        np.savez(train, images=images[: given.pictures], labels=labels[: given.pictures])
        np.savez(test, images=images[given.pictures :], labels=labels[given.pictures :])
        try:
            result = farrier.optimize(
                given.network,
                train=train,
                data=test,
                max_size=given.max_size,
                max_drop=given.max_drop,
                epochs=given.epochs,
                precision=given.precision,
                engine=given.engine,
                augment="crop:4,mirror",
                out=given.out,
                progress=lambda stage, share: print(
                    f"\r{share:4.0%} {stage:.100}\033[K", end="", file=sys.stderr
                ),
            )
        except BudgetError as error:
            sys.exit(f"\n{error}")
    print(f"\n{result.verdict}\n")
    print(f"{'step':10}{'accuracy':>10}{'bytes':>12}{'multiply-adds':>16}{'ms':>8}")
    for step in result.report.get("steps", ()):
        print(
            f"{step['name']:10}{step['metric']:10.2%}{step['bytes']:12,}{step['multiply_adds']:16,}"
            f"{step.get('latency_ms', float('nan')):8.3f}"
        )


if __name__ == "__main__":
    main()
