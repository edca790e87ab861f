"""Both sides of the sparsity figures: a network of CIFAR-10, dense and sparse, trained alike on cifar10_jpg.

Both sides start from the same fine-tuned dense network and learn its answers (temperature 2) for the same epochs, with
the same seed, order of data, crops, flips, mixtures and rates; one of them becomes sparse on the way. The control is
the better of the dense side and the network that both start from.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cifar import ROOT, accuracy, pictures, resnet

from farrier_converters import passes
from farrier_converters.model import Model
from farrier_converters.passes.sparsify import Sparsified, SparsifyOptions, sparsify
from farrier_converters.training.data import Rows
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule
from farrier_converters.training.objective import Objective

SHIFT = 4  # pixels that a crop moves by at most
TEMPERATURE = 2.0
MIXED = 0.5  # share of batches whose pictures are mixed in pairs


@dataclass(frozen=True)
class Sides:
    """Accuracies in percent, and the sparse network."""

    start: float
    dense: float
    sparse: float
    found: Sparsified

    @property
    def drop(self) -> float:
        """In points, from the better dense network."""
        return max(self.start, self.dense) - self.sparse


class Answers(Objective):
    """Distance to a teacher's softened answers; labels do not count, so that pictures may be mixed."""

    def __init__(self, teacher: Model) -> None:
        self.teacher = OnnxModule(teacher).eval()

    def __call__(self, values, feeds, labels):
        with torch.no_grad():
            wanted = F.softmax(self.teacher(**feeds).float() / TEMPERATURE, 1)
        found = F.log_softmax(values["logits"] / TEMPERATURE, 1)
        return F.kl_div(found, wanted, reduction="batchmean") * TEMPERATURE**2

    def to(self, device: torch.device) -> None:
        self.teacher.to(device)


def augment(inputs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shift each picture by up to 4 pixels and mirror half of them."""
    images = inputs["images"]
    rows, size = np.arange(len(images)), images.shape[-1]
    padded = np.pad(images, ((0, 0), (0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    top, left = rng.integers(0, 2 * SHIFT + 1, (2, len(images), 1)) + np.arange(size)
    left = np.where(rng.integers(0, 2, (len(images), 1)), left[:, ::-1], left)
    cut = padded[rows[:, None, None], :, top[:, :, None], left[:, None, :]]
    return {"images": np.ascontiguousarray(cut.transpose(0, 3, 1, 2))}


def mixed(inputs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Augment, and mix the pictures of some batches in pairs (Zhang et al., arXiv 1710.09412)."""
    images = augment(inputs, rng)["images"]
    if rng.random() < MIXED:
        share = rng.random((len(images), 1, 1, 1)).astype(np.float32)
        images = share * images + (1 - share) * images[rng.permutation(len(images))]
    return {"images": images}


def parser(description: str, *, epochs: int, rate: float) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description.splitlines()[0])
    made.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    made.add_argument("--epochs", type=int, default=epochs, help="of each side")
    made.add_argument(
        "--start-epochs", type=int, default=20, help="of the network that both sides start from"
    )
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument(
        "--train", type=int, default=7000, help="pictures to train on; 3000 others are the test"
    )
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--rate", type=float, default=rate)
    return made


def one_seed(name: str, options: SparsifyOptions, seed: int, arguments: argparse.Namespace) -> Sides:
    source, (images, labels) = resnet(arguments.shared_data, name), pictures(arguments.shared_data)
    order = np.random.default_rng(seed).permutation(len(images))
    rows, test = order[: arguments.train], order[7000:]

    def score(model: Model) -> float:
        return accuracy(model, images[test], labels[test])

    def stream(change) -> Rows:
        inputs = {"images": images[rows]}
        return Rows(inputs, labels[rows], batch=arguments.batch, seed=seed, augment=change)

    rates = {"seed": seed, "device": arguments.device, "optimizer": "sgd", "frozen_norms": 0.0}
    clock = time.perf_counter()
    begun = FitSettings(epochs=arguments.start_epochs, learning_rate=0.01, weight_decay=5e-4, **rates)
    start = _trained(source, stream(augment), begun, None)
    found = score(start)
    print(
        f"seed {seed}: {name} {score(source):.2f}, start of both sides {found:.2f} ({_since(clock)})",
        flush=True,
    )
    clock = time.perf_counter()
    settings = {"epochs": arguments.epochs, "learning_rate": arguments.rate, "weight_decay": 1e-4, **rates}
    dense = score(_trained(start, stream(mixed), FitSettings(**settings), Answers(start)))
    print(f"seed {seed}: dense side {dense:.2f} ({_since(clock)})", flush=True)
    clock = time.perf_counter()
    context = passes.Context(training=stream(mixed))
    made = sparsify(start, replace(options, fit=settings, objective=Answers(start)), context)
    sides = Sides(found, dense, score(made.model), made)
    print(
        f"seed {seed}: sparse side {sides.sparse:.2f}, {made.report.sparsity:.1%} zeros, "
        f"drop {sides.drop:+.2f} ({_since(clock)})",
        flush=True,
    )
    return sides


def _trained(model: Model, stream: Rows, settings: FitSettings, objective: Objective | None) -> Model:
    module = OnnxModule(model)
    fit(module, stream, settings, objective=objective)
    return module.write_back()


def _since(clock: float) -> str:
    return f"{time.perf_counter() - clock:.0f} s"
