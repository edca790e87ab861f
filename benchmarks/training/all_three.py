"""Prune, distil from the original, round to INT8: one recipe on ResNet56, against the float network trained alike.

    python -m benchmarks.training.all_three [--stage dense|shrink|measure] [--device cuda] [--epochs 60] [--seeds 1]
                                            [--layers 36%] [--parameters 0.9] [--rounds 1] [--work DIR]
                                            [--shared-data ../shared/data]

The pictures of cifar10_jpg, 7,000 to learn from and 3,000 to judge by, split anew with each seed. `dense` fine-tunes
the published ResNet56: the float network that one would deliver, and the original that the recipe starts and learns
from (or put another there, like the dense side of `benchmarks.pruning.resnet56`, which has the same pictures). `shrink`
applies the recipe of `farrier optimize` (prune, distill, fuse, int8; with --layers, layers go before channels, and the
other shares are of what that leaves) with as many epochs, crops and flips in the same order. Both write ONNX files into
--work, so that they may run on a machine with an accelerator, which then has no part in the figures. `measure` reads
these files: bytes, medians of interleaved runs at batch 1 on one thread of ONNX Runtime, and accuracies in ONNX
Runtime. Without --stage all run in turn. No epoch is chosen by the 3,000. The published
network has seen the lossless twins of all pictures, which a third of the parameters cannot know by heart; --source
takes one that has not (see `benchmarks.training.unseen`; with its seed 0, so one seed). The figure is the least of: how
many times smaller over 10, how many times faster over 4, one point over the points lost (at most 2), each as the mean
over seeds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from farrier_converters import passes
from farrier_converters.measure import Child, EngineFailure, LatencySettings, measure
from farrier_converters.model import Model, load, save
from farrier_converters.training.augment import named
from farrier_converters.training.data import Rows
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT, TARGET, accuracy, pictures, resnet
from ..figure import emit

SMALLER, FASTER, POINTS = 10.0, 4.0, 1.0
SHARE = 0.7  # of the pictures, to learn from
CALIBRATION = 512  # pictures
NETWORK = "resnet56"
MOST_MARGIN = 2.0  # of the accuracy: a drop of nothing, or a gain


@dataclass(frozen=True)
class Split:
    """The pictures of one seed."""

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    test: np.ndarray
    seed: int
    batch: int

    def stream(self) -> Rows:
        augment = named(("crop:4", "mirror"))
        images, labels = self.images[self.rows], self.labels[self.rows]
        return Rows({"images": images}, labels, batch=self.batch, seed=self.seed, augment=augment)

    def calibration(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, min(CALIBRATION, len(self.rows)), 64):
            yield {"images": self.images[self.rows[start : start + 64]]}

    def score(self, model: Model) -> float:
        return accuracy(model, self.images[self.test], self.labels[self.test])


def fields(given: argparse.Namespace, seed: int, rate: float, epochs: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "learning_rate": rate,
        "optimizer": "sgd",
        "weight_decay": 5e-4,
        "frozen_norms": 0.0,
        "seed": seed,
        "device": given.device,
        "precision": given.precision,
    }


def recipe(given: argparse.Namespace, seed: int) -> list[tuple[str, dict[str, Any]]]:
    between = fields(given, seed, given.dense_rate, given.between) if given.rounds > 1 else {}
    rounds = {"rounds": given.rounds, "fit": between, "seed": seed, "rebuild": False}
    goals = {"parameters": given.parameters, "latency": given.latency}
    pruned = [
        ("prune", {goal: share, "importance": given.importance, **rounds})
        for goal, share in goals.items()
        if share < 1
    ]
    taught = {
        "temperature": given.temperature,
        "hard": given.hard,
        "features": given.features,
        "adapt": 0,
        "fit": fields(given, seed, given.rate, given.epochs),
    }
    shallow = [] if given.layers is None else [("student", {"layers": given.layers})]
    return [("clean", {}), *shallow, *pruned, ("distill", taught), ("fuse", {}), ("int8", {}), ("shrink", {})]


def dense(data: Split, given: argparse.Namespace) -> None:
    started = time.perf_counter()
    network = resnet(given.shared_data, NETWORK) if given.source is None else load(given.source)
    module = OnnxModule(network)
    fit(module, data.stream(), FitSettings(**fields(given, data.seed, given.dense_rate, given.epochs)))
    tuned = module.write_back()
    save(tuned, given.work / f"dense-{data.seed}.onnx")
    print(
        f"seed {data.seed}: {NETWORK} {data.score(network):.2f}, fine-tuned for {given.epochs} epochs "
        f"{data.score(tuned):.2f} ({time.perf_counter() - started:.0f} s)",
        flush=True,
    )


def shrink(data: Split, given: argparse.Namespace) -> None:
    original = load(given.work / f"dense-{data.seed}.onnx")
    context = passes.Context(TARGET, data.calibration, training=data.stream(), original=original)
    model = original
    for name, options in recipe(given, data.seed):
        started = time.perf_counter()
        step = passes.get(name)
        model = step.run(model, step.options(**options), context)
        parameters = sum(int(np.prod(t.dims)) for t in model.proto.graph.initializer)
        print(
            f"seed {data.seed}: after {name:8} {data.score(model):6.2f}, {parameters:,} parameters "
            f"({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
        if name == "distill":
            save(model, given.work / f"float-{data.seed}.onnx")
    save(model, given.work / f"small-{data.seed}.onnx")


def compare(data: Split, given: argparse.Namespace) -> dict[str, float]:
    """Return how many times smaller and faster the small network is, and how many points it loses."""
    paths = {name: given.work / f"{name}-{data.seed}.onnx" for name in ("dense", "float", "small")}
    feeds = {"images": data.images[data.test[:1]]}
    settings = LatencySettings(rounds=given.repeats, most_rounds=2 * given.repeats)
    with (
        Child(paths["dense"], "onnxruntime") as before,
        Child(paths["float"], "onnxruntime") as between,
        Child(paths["small"], "onnxruntime") as after,
    ):
        timed = measure(
            {"dense": before, "float": between, "small": after}, feeds, batch=1, settings=settings
        )
    found: dict[str, tuple[float, int, float]] = {}
    for name, path in paths.items():
        latency = timed[name]
        if isinstance(latency, EngineFailure):
            raise latency
        found[name] = latency.p50_ms, path.stat().st_size, data.score(load(path))
        milliseconds, size, right = found[name]
        print(f"seed {data.seed}: {name:5} {right:.2f} %, {size:,} bytes, {milliseconds:.3f} ms", flush=True)
    (slow, large, best), (fast, small, right) = found["dense"], found["small"]
    return {"smaller": large / small, "faster": slow / fast, "points": best - right}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=Path("/tmp/all_three"), help="folder for the networks")
    parser.add_argument("--source", type=Path, help="a ResNet56 as ONNX in place of the published one")
    parser.add_argument("--stage", choices=("dense", "shrink", "measure"), help="only this one")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=60, help="of the dense network, and of the small one")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--parameters", type=float, default=0.31, help="share of them that is left")
    parser.add_argument("--latency", type=float, default=1.0, help="share of the predicted time that is left")
    parser.add_argument("--rounds", type=int, default=1, help="of pruning, with training in between")
    parser.add_argument("--between", type=int, default=5, help="epochs between rounds")
    parser.add_argument("--importance", default="auto")
    parser.add_argument("--layers", help="leave out layers before pruning, and keep this share, like 36%%")
    parser.add_argument("--dense-rate", type=float, default=0.02)
    parser.add_argument("--rate", type=float, default=0.05, help="of the distillation")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--hard", type=float, default=0.1, help="share of the labels in the loss")
    parser.add_argument("--features", type=float, default=0.0)
    parser.add_argument("--rows", type=int, default=10_000, help="of all pictures, these many")
    parser.add_argument("--repeats", type=int, default=40, help="rounds of timing")
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    images, labels = pictures(given.shared_data)
    results = []
    for seed in range(given.seeds):
        order = np.random.default_rng(seed).permutation(len(images))[: given.rows]
        cut = int(SHARE * len(order))
        data = Split(images, labels, order[:cut], order[cut:], seed, given.batch)
        if given.stage in (None, "dense"):
            dense(data, given)
        if given.stage in (None, "shrink"):
            shrink(data, given)
        if given.stage in (None, "measure"):
            results.append(compare(data, given))
    if results:
        mean = {name: float(np.mean([one[name] for one in results])) for name in results[0]}
        print(json.dumps({name: round(value, 3) for name, value in mean.items()}))
        kept = min(MOST_MARGIN, POINTS / max(mean["points"], 1e-9))
        margin = min(mean["smaller"] / SMALLER, mean["faster"] / FASTER, kept)
        emit("all_three_least_margin", margin, goal=1.0, unit="times")


if __name__ == "__main__":
    main()
