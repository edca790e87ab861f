"""Both sides of the sparsity figures: a network of CIFAR-10, dense and sparse, trained alike on cifar10_jpg.

Both sides start from one dense network that was trained from scratch on the 7,000 pictures of a split and has never
seen the 3,000 that judge (see `unseen`; `--source` takes one that was trained before). Both learn its answers
(temperature 2) for the same epochs, with the same seed, order of data, crops, flips, mixtures and rates; one of them
becomes sparse on the way. The control is the better of the dense side and the network that both start from.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from farrier_converters import passes
from farrier_converters.model import Model, load
from farrier_converters.passes.sparsify import Sparsified, SparsifyOptions, sparsify
from farrier_converters.training.data import Rows
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule
from farrier_converters.training.objective import Objective

from ..cifar import ROOT, accuracy, pictures
from ..training import unseen
from ..training.distillation_resnet20 import augment

TEMPERATURE = 2.0
LEAST = 50.0  # percent that the start must reach
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


@dataclass(frozen=True)
class Job:
    """What both sides are given, and the pictures that judge them."""

    start: Model
    stream: Rows
    settings: dict[str, Any]
    options: SparsifyOptions
    images: np.ndarray
    labels: np.ndarray

    def score(self, model: Model) -> float:
        return accuracy(model, self.images, self.labels)


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
        "--source", type=Path, help="of `benchmarks.training.unseen`, with the same seed and pictures"
    )
    made.add_argument(
        "--start-epochs", type=int, default=60, help="without a source: of the start of both sides"
    )
    made.add_argument("--parallel", action="store_true", help="both sides at once, in processes of their own")
    made.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    made.add_argument("--seeds", type=int, default=1)
    made.add_argument(
        "--train", type=int, default=7000, help="pictures to train on; 3000 others are the test"
    )
    made.add_argument("--batch", type=int, default=128)
    made.add_argument("--rate", type=float, default=rate)
    return made


def one_seed(name: str, options: SparsifyOptions, seed: int, arguments: argparse.Namespace) -> Sides:
    images, labels = pictures(arguments.shared_data)
    order = np.random.default_rng(seed).permutation(len(images))
    rows, test = order[: arguments.train], order[7000:]

    stream = Rows({"images": images[rows]}, labels[rows], batch=arguments.batch, seed=seed, augment=mixed)
    clock = time.perf_counter()
    start = load(arguments.source) if arguments.source else _start(name, seed, arguments)
    known = accuracy(start, images[test], labels[test])
    print(f"seed {seed}: {name}, the start of both sides {known:.2f} ({_since(clock)})", flush=True)
    if known < LEAST:
        raise SystemExit("the start of both sides knows too little to compare them: give it more epochs")
    clock = time.perf_counter()
    settings: dict[str, Any] = {
        "epochs": arguments.epochs,
        "learning_rate": arguments.rate,
        "weight_decay": 1e-4,
        "seed": seed,
        "device": arguments.device,
        "precision": arguments.precision,
        "optimizer": "sgd",
        "frozen_norms": 0.0,
    }
    job = Job(start, stream, settings, options, images[test], labels[test])
    if arguments.parallel:
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            sides = [pool.submit(dense_side, job), pool.submit(sparse_side, job)]
            dense, (sparse, made) = sides[0].result(), sides[1].result()
    else:
        dense, (sparse, made) = dense_side(job), sparse_side(job)
    found = Sides(known, dense, sparse, made)
    print(
        f"seed {seed}: dense side {dense:.2f}, sparse side {sparse:.2f}, {made.report.sparsity:.1%} zeros, "
        f"drop {found.drop:+.2f} ({_since(clock)})",
        flush=True,
    )
    return found


def dense_side(job: Job) -> float:
    module = OnnxModule(job.start)
    fit(module, job.stream, FitSettings(**job.settings), objective=Answers(job.start))
    return job.score(module.write_back())


def sparse_side(job: Job) -> tuple[float, Sparsified]:
    options = replace(job.options, fit=job.settings, objective=Answers(job.start))
    made = sparsify(job.start, options, passes.Context(training=job.stream))
    return job.score(made.model), made


def _start(name: str, seed: int, arguments: argparse.Namespace) -> Model:
    given = argparse.Namespace(**{**vars(arguments), "network": name, "seed": seed})
    given.epochs, given.rate = arguments.start_epochs, 0.1
    return unseen.trained(given)[0]


def _since(clock: float) -> str:
    return f"{time.perf_counter() - clock:.0f} s"
