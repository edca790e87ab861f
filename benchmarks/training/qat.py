"""What quantization-aware training wins over post-training quantization at few bits, and what is left to float.

    python -m benchmarks.training.qat [--shared-data ../shared/data] [--epochs 6] [--seeds 1] [--train 7000]
                                      [--only W4A4]

ResNet20 on cifar10_jpg with a split of its own per seed. The float control is fine-tuned with the same seed, order of
data, schedule and number of epochs. Every accuracy is measured in ONNX Runtime, of integer models in integers. The
post-training side is the better of two range methods on the model as it came and on the fine-tuned control.
Batches are augmented by crops and flips. On both sides the first and the last layer are wide, and four bits are for
activations that meet weights: summands keep eight.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from farrier_converters import passes
from farrier_converters.model import Model
from farrier_converters.passes.int8 import Int8Options
from farrier_converters.passes.qat import QatOptions, train
from farrier_converters.training.data import Rows
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT, TARGET, accuracy, pictures, resnet20
from ..figure import emit

BITS = {"W4A8": (4, 8), "W4A4": (4, 4)}
GAINS = {"W4A8": 0.9, "W4A4": 3.0}
GAPS = {"W4A8": 0.3, "W4A4": 1.5}
CALIBRATION = 512


def augment(inputs: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Shift each picture by up to 4 pixels and mirror half of them."""
    images = np.pad(inputs["images"], ((0, 0), (0, 0), (4, 4), (4, 4)))
    found = np.empty_like(inputs["images"])
    for row, (top, left, flip) in enumerate(rng.integers(0, (9, 9, 2), (len(found), 3))):
        part = images[row, :, top : top + 32, left : left + 32]
        found[row] = part[..., ::-1] if flip else part
    return {"images": found}


def post_training(models: list[Model], bits: tuple[int, int], context: passes.Context, score) -> float:
    """The best accuracy of ours without training: over models and range methods."""
    best = 0.0
    for source in models:
        fused = source
        for name in ("clean", "fuse"):
            fused = passes.get(name).run(fused, passes.get(name).options(), context)
        for method in ("mse", "minmax"):
            options = Int8Options(
                method=method, weight_bits=bits[0], activation_bits=bits[1], wide_edges=True
            )
            best = max(best, score(passes.get("int8").run(fused, options, context)))
    return best


def one_seed(source: Model, data: tuple[np.ndarray, np.ndarray], seed: int, arguments) -> dict[str, float]:
    images, labels = data
    order = np.random.default_rng(seed).permutation(len(images))
    rows, test = order[: arguments.train], order[arguments.train :]

    def score(model: Model) -> float:
        return accuracy(model, images[test], labels[test])

    def calibration():
        return ({"images": images[rows[i : i + 64]]} for i in range(0, CALIBRATION, 64))

    stream = Rows({"images": images[rows]}, labels[rows], batch=arguments.batch, seed=seed, augment=augment)
    context = passes.Context(TARGET, calibration, training=stream)
    rates = {"epochs": arguments.epochs, "seed": seed, "learning_rate": arguments.rate}
    started = time.perf_counter()
    module = OnnxModule(source)
    fit(module, stream, FitSettings(**rates))
    tuned = module.write_back()
    found = {"float": score(source), "control": score(tuned)}
    print(
        f"seed {seed}: float {found['float']:.2f}, fine-tuned control {found['control']:.2f}"
        f" ({time.perf_counter() - started:.0f} s, {len(test)} test pictures)",
        flush=True,
    )
    for name in arguments.only:
        bits = BITS[name]
        started = time.perf_counter()
        ptq = post_training([source, tuned], bits, context, score)
        options = QatOptions(
            Int8Options(weight_bits=bits[0], activation_bits=bits[1], wide_edges=True), fit=rates
        )
        trained = train(source, options, context)
        qat = score(trained.model)
        moved = np.concatenate([np.abs(change).reshape(-1) for change in trained.moved.values()])
        found |= {f"{name} gain": qat - ptq, f"{name} gap": found["control"] - qat}
        print(
            f"seed {seed}: {name} post-training {ptq:.2f}, trained {qat:.2f} ({qat - ptq:+.2f}), "
            f"{found['control'] - qat:+.2f} below the control; scales moved by a median of "
            f"{np.median(moved):.1%} ({time.perf_counter() - started:.0f} s)",
            flush=True,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--train", type=int, default=7000, help="pictures to train on; the others are the test"
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=FitSettings().learning_rate)
    parser.add_argument("--only", choices=tuple(BITS), action="append", help="of the widths, these")
    arguments = parser.parse_args()
    arguments.only = arguments.only or list(BITS)
    source, data = resnet20(arguments.shared_data), pictures(arguments.shared_data)
    found = [one_seed(source, data, seed, arguments) for seed in range(arguments.seeds)]
    mean = {key: float(np.mean([one[key] for one in found])) for key in found[0]}
    for name in arguments.only:
        print(
            f"{name}: gain {mean[f'{name} gain']:+.2f} (goal {GAINS[name]:+.1f}), "
            f"below the control {mean[f'{name} gap']:.2f} (goal {GAPS[name]:.1f})"
        )
    margins = [mean[f"{name} gain"] - GAINS[name] for name in arguments.only]
    margins += [GAPS[name] - mean[f"{name} gap"] for name in arguments.only]
    emit("qat_least_margin_over_goals", min(margins), goal=0.0, unit="points")


if __name__ == "__main__":
    main()
