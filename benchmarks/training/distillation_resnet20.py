"""What a ResNet20 learns more from a ResNet56 than from labels alone: same start, data, augmentation, epochs, seeds.

    python -m benchmarks.training.distillation_resnet20 [--device cuda] [--epochs 40] [--seeds 2] [--start scratch]
                                                        [--shared-data ../shared/data] [--rows 10000]

The pictures of cifar10_jpg, 7,000 to learn from and 3,000 to judge by, split anew with each seed. The teacher is the
published ResNet56, first adapted to the 7,000 (accuracies before and after are printed). Both students start from the
same weights: drawn at random with the seed ("scratch": what a student gains that has only these pictures), or the
published ResNet20 ("checkpoint": it has seen five times as many, so that there is less to gain). Both train with the
same settings, crops and flips in the same order; the one difference is the objective. No epoch is chosen by the 3,000.
Every accuracy is measured in ONNX Runtime. The figure is the mean gain over seeds, in points.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from farrier_converters.model import Model, from_proto
from farrier_converters.training.augment import named
from farrier_converters.training.data import Rows
from farrier_converters.training.distillation import Weights
from farrier_converters.training.distillation.teach import Lesson, teach
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT, accuracy, pictures, resnet
from ..figure import emit

GOAL = 1.0  # points
SHARE = 0.7  # of the pictures, to learn from
RATES = {"scratch": 0.1, "checkpoint": 0.02}
augment = named(("crop:4", "mirror"))


def drawn(model: Model, seed: int) -> Model:
    """Return a network with weights as before any training: He et al. 2015 (arXiv 1502.01852), norms at rest."""
    rng = np.random.default_rng(seed)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    for tensor in proto.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype != np.float32:
            continue
        if value.ndim > 1:
            fan = np.prod(value.shape[1:]) if value.ndim == 4 else value.shape[1]
            made = rng.standard_normal(value.shape) * np.sqrt((2.0 if value.ndim == 4 else 1.0) / fan)
        else:
            scale = tensor.name.endswith(("running_var", "bn1.weight", "bn2.weight"))
            made = np.ones(value.shape) if scale else np.zeros(value.shape)
        tensor.CopyFrom(numpy_helper.from_array(made.astype(np.float32), tensor.name))
    return from_proto(proto, model.name)


def one_seed(seed: int, data: tuple[np.ndarray, np.ndarray], given: argparse.Namespace) -> float:
    images, labels = data
    order = np.random.default_rng(seed).permutation(len(images))[: given.rows]
    cut = int(SHARE * len(order))
    rows, test = order[:cut], order[cut:]
    stream = Rows({"images": images[rows]}, labels[rows], batch=given.batch, seed=seed, augment=augment)

    def score(model: Model) -> float:
        return accuracy(model, images[test], labels[test])

    started = time.perf_counter()
    settings = FitSettings(
        epochs=given.epochs,
        learning_rate=given.rate or RATES[given.start],
        optimizer="sgd",
        weight_decay=5e-4,
        frozen_norms=0.0,
        seed=seed,
        device=given.device,
        precision=given.precision,
    )
    teacher, adapted = adapt(given, stream, settings)
    student = resnet(given.shared_data, "resnet20")
    student = drawn(student, seed) if given.start == "scratch" else student
    print(
        f"seed {seed}: teacher {score(teacher):.2f}, adapted {score(adapted):.2f}, "
        f"student before {score(student):.2f} ({time.perf_counter() - started:.0f} s, {len(test)} test pictures)",
        flush=True,
    )
    started = time.perf_counter()
    module = OnnxModule(student)
    fit(module, stream, settings)
    alone = score(module.write_back())
    middle = time.perf_counter()
    weights = Weights(given.temperature, given.hard, given.features, given.attention)
    found = teach(student, [adapted], stream, Lesson(weights=weights, fit=settings))
    distilled = score(found.model)
    print(
        f"seed {seed}: alone {alone:.2f} ({middle - started:.0f} s), distilled {distilled:.2f} "
        f"({time.perf_counter() - middle:.0f} s): {distilled - alone:+.2f} points",
        flush=True,
    )
    return distilled - alone


def adapt(given: argparse.Namespace, stream: Rows, settings: FitSettings) -> tuple[Model, Model]:
    teacher = resnet(given.shared_data, "resnet56")
    if not given.adapt:
        return teacher, teacher
    module = OnnxModule(teacher)
    fit(module, stream, replace(settings, epochs=given.adapt, learning_rate=RATES["checkpoint"]))
    return teacher, module.write_back()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--adapt", type=int, default=8, help="epochs of the teacher on the same pictures")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--start", default="scratch", choices=tuple(RATES))
    parser.add_argument("--rows", type=int, default=10_000, help="of all pictures, these many")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, help=f"highest learning rate of both students; else {RATES}")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--hard", type=float, default=0.1, help="share of the labels in the loss")
    parser.add_argument("--features", type=float, default=0.0)
    parser.add_argument("--attention", type=float, default=0.0)
    given = parser.parse_args()
    data = pictures(given.shared_data)
    gains = [one_seed(seed, data, given) for seed in range(given.seeds)]
    print(f"from {given.start}, {given.epochs} epochs: gains {', '.join(f'{g:+.2f}' for g in gains)}")
    emit("distillation_gain_resnet20", float(np.mean(gains)), goal=GOAL, unit="points")


if __name__ == "__main__":
    main()
