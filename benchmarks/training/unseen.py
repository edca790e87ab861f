"""A ResNet that has seen 7,000 pictures of cifar10_jpg and no other, so that the 3,000 that judge it are new to it.

    python -m benchmarks.training.unseen -o resnet56.onnx [--network resnet56] [--epochs 60] [--seed 0] [--device cuda]

The published networks were trained on the lossless twins of all 10,000 pictures: what they know of the 3,000 by heart
counts as accuracy, and a network with a third of the parameters cannot keep it. Drawn at random and trained with
crops and flips, for `benchmarks.pruning.resnet56 --source`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from farrier_converters.model import Model, save
from farrier_converters.training.data import Rows
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT, accuracy, pictures, resnet
from .distillation_resnet20 import augment, drawn


def trained(given: argparse.Namespace) -> tuple[Model, float]:
    """Return the network and its accuracy in percent on the pictures that it has not seen."""
    images, labels = pictures(given.shared_data)
    order = np.random.default_rng(given.seed).permutation(len(images))
    rows, test = order[: given.train], order[7000:]
    module = OnnxModule(drawn(resnet(given.shared_data, given.network), given.seed))
    settings = FitSettings(
        epochs=given.epochs,
        learning_rate=given.rate,
        optimizer="sgd",
        weight_decay=5e-4,
        frozen_norms=0.0,
        seed=given.seed,
        device=given.device,
        precision=given.precision,
    )
    stream = Rows({"images": images[rows]}, labels[rows], batch=given.batch, seed=given.seed, augment=augment)
    fit(module, stream, settings, progress=_say)
    model = module.write_back()
    return model, accuracy(model, images[test], labels[test])


_SAID: set[str] = set()


def _say(stage: str, _share: float) -> None:
    if stage not in _SAID:
        _SAID.add(stage)
        print(stage, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--network", default="resnet56", choices=("resnet20", "resnet56"))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--train", type=int, default=7000, help="pictures to train on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    model, score = trained(given)
    save(model, given.out)
    print(f"{given.network}, {given.epochs} epochs: {score:.2f} % of pictures never seen; {given.out}")


if __name__ == "__main__":
    main()
