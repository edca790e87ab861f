"""ResNet56 with its multiply-adds cut 3 times, against the dense network and Torch-Pruning: all trained alike.

    python -m benchmarks.pruning.resnet56 [--device cuda] [--epochs 100] [--seeds 3] [--work out/pruning_resnet56]
    python -m benchmarks.pruning.resnet56 --stage teach --seed 0 [...]      (trains; needs a fast machine)
    python -m benchmarks.pruning.resnet56 --stage peer --seed 0             (needs `make torch-pruning`, no data)
    python -m benchmarks.pruning.resnet56 --stage tune --only ours --seed 0 (trains)
    python -m benchmarks.pruning.resnet56 --stage report

The pictures of cifar10_jpg, 7,000 to learn from and 3,000 to judge by, split anew with each seed. "teach" fine-tunes
the ResNet56 with labels (the published one, which has seen these very pictures in a lossless form, or `--source`;
`--teach-epochs 0` leaves it as it is): this is the network that is pruned, and the teacher of all that follow. Then
each side trains for `--epochs` more with the same pictures, crops and flips, batch size, optimizer, rates and
objective (labels and the teacher's soft answers): "dense" the network as it is; "ours" pruned in rounds, whose epochs
come off its budget, to any width; "ours-steps" the same on the steps of 16 channels and with whole blocks; "torch-
pruning" as Torch-Pruning cuts it (of its two importances the one whose network has the lower loss on training
pictures). No epoch is chosen by the 3,000. Multiply-adds are counted by one function for all; accuracies are measured
in ONNX Runtime. Files of finished stages in `--work` are not made again. The figure is the least mean margin over
seeds, in points: ours over dense, and over Torch-Pruning.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import numpy_helper

from farrier_converters.graph import run
from farrier_converters.model import Model, load, save
from farrier_converters.passes import Context, get
from farrier_converters.pruning.group import Groups
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.procedure import Resources, procedure, totals
from farrier_converters.pruning.staircase import default
from farrier_converters.training.augment import named
from farrier_converters.training.data import Batch, Rows
from farrier_converters.training.distillation import Weights
from farrier_converters.training.distillation.teach import Lesson, teach
from farrier_converters.training.fit import FitSettings, fit
from farrier_converters.training.importance import gradients
from farrier_converters.training.module import OnnxModule

from ..cifar import ROOT, accuracy, pictures, resnet
from ..figure import emit

SIDES = ("dense", "ours", "ours-steps", "torch-pruning")
PEER = ROOT / ".venv-torch-pruning" / "bin" / "python"
IMPORTANCES = ("magnitude", "taylor")  # of the peer
STEPS = default("onnxruntime", "fp32", "x86_64")
TRAIN = 7000


@dataclass(frozen=True)
class Later:
    """A stream that goes on where `epochs` of another have ended."""

    stream: Rows
    epochs: int

    def __len__(self) -> int:
        return len(self.stream)

    def __call__(self, epoch: int) -> Iterator[Batch]:
        return self.stream(self.epochs + epoch)


class Bench:
    """One seed's pictures, and the files of its stages."""

    def __init__(self, given: argparse.Namespace, seed: int) -> None:
        self.given, self.seed = given, seed
        images, labels = pictures(given.shared_data)
        order = np.random.default_rng(seed).permutation(len(images))
        rows, test = order[:TRAIN], order[TRAIN:]
        if given.rows:
            rows = rows[: given.rows]
        self.train, self.labels = images[rows], labels[rows]
        self.test = images[test], labels[test]
        self.work: Path = given.work
        self.work.mkdir(parents=True, exist_ok=True)

    def file(self, name: str, suffix: str = ".onnx") -> Path:
        return self.work / f"{name}-{self.seed}{suffix}"

    def stream(self) -> Rows:
        inputs = {"images": self.train}
        return Rows(
            inputs,
            self.labels,
            batch=self.given.batch,
            seed=self.seed,
            augment=named(("crop:4", "mirror")),
        )

    def settings(self, epochs: int, *, rate: float | None = None, schedule: str = "cosine") -> FitSettings:
        return FitSettings(
            epochs=epochs,
            learning_rate=rate or self.given.rate,
            optimizer="sgd",
            weight_decay=5e-4,
            frozen_norms=0.0,
            schedule=schedule,
            seed=self.seed,
            device=self.given.device,
            precision=self.given.precision,
        )

    def score(self, model: Model) -> float:
        return accuracy(model, *self.test)

    def taught(self, student: Model, settings: FitSettings, start: int = 0) -> Model:
        weights = Weights(self.given.temperature, self.given.hard)
        stream = Later(self.stream(), start)
        return teach(
            student, [load(self.file("teacher"))], stream, Lesson(weights=weights, fit=settings)
        ).model


def teacher(bench: Bench) -> None:
    """Fine-tune the network with labels."""
    path = bench.file("teacher")
    if path.is_file():
        return
    started = time.perf_counter()
    given = bench.given
    source = resnet(given.shared_data, "resnet56")
    if given.source is not None:
        source = load(Path(str(given.source).format(seed=bench.seed)))
    source = model = clean(source)
    if given.teach_epochs:
        module = OnnxModule(source)
        fit(module, bench.stream(), bench.settings(given.teach_epochs))
        model = module.write_back()
    print(
        f"seed {bench.seed}: as it came {bench.score(source):.2f}, fine-tuned {bench.score(model):.2f} "
        f"({time.perf_counter() - started:.0f} s)",
        flush=True,
    )
    save(model, path)


def clean(model: Model) -> Model:
    step = get("clean")
    return step.run(model, step.options(), Context())


def peer(bench: Bench) -> None:
    """Let Torch-Pruning cut the teacher, with each of its importances, and keep the one with the lower loss."""
    if bench.file("torch-pruning-cut").is_file():
        return
    python: Path = bench.given.peer
    if not python.is_file():
        raise SystemExit("Torch-Pruning is not installed; run: make torch-pruning")
    model = load(bench.file("teacher"))
    weights, rows = bench.file("weights", ".npz"), bench.file("rows", ".npz")
    np.savez(weights, **{t.name: numpy_helper.to_array(t) for t in checkpoint(model)})  # type: ignore[arg-type]
    np.savez(rows, images=bench.train[:1024], labels=bench.labels[:1024])
    found: dict[float, str] = {}
    for name in IMPORTANCES:
        out = bench.file(f"torch-pruning-{name}")
        script = ROOT / "benchmarks" / "peers" / "torch_pruning_resnet.py"
        done = subprocess.run(
            [python, script, weights, rows, out, str(bench.given.cut), name],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(done.stderr)
        print(f"seed {bench.seed}: {done.stdout.strip().splitlines()[-1]}", flush=True)
        cut = load(out)
        found[loss(cut, bench.train[:1024], bench.labels[:1024])] = name
    best = load(bench.file(f"torch-pruning-{found[min(found)]}"))
    save(best, bench.file("torch-pruning-cut"))


def checkpoint(model: Model) -> list:
    """The constants that the published checkpoint holds; the other ones are sizes of slices and pads."""
    kept = (".weight", ".bias", ".running_mean", ".running_var")
    return [tensor for tensor in model.proto.graph.initializer if tensor.name.endswith(kept)]


def loss(model: Model, images: np.ndarray, labels: np.ndarray) -> float:
    scores = np.asarray(run.once(model.proto, {"images": images})[0], np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return float(-logs[np.arange(len(labels)), labels].mean())


def ours(bench: Bench, *, steps: bool) -> tuple[Model, int, str]:
    """Prune the teacher in rounds; returns the model, the epochs that this took, and what was cut."""
    given, spent = bench.given, 0
    each = given.round_epochs

    def tune(model: Model) -> Model:
        nonlocal spent
        settings = bench.settings(each, rate=given.rate, schedule="constant")
        made = bench.taught(model, settings, start=spent)
        spent += each
        return made

    def weigh(groups: Groups, name: str) -> dict[str, np.ndarray]:
        return gradients(groups, name, bench.stream()(1000 + spent), rows=2048, device=given.device)

    options = PruneOptions(
        speedup=given.cut,
        importance=given.importance,
        rounds=given.rounds,
        any_width=not steps,
        blocks=steps or given.blocks,
        rebuild=False,
        keep_least=0.2,
    )
    found = procedure(load(bench.file("teacher")), options, Resources(STEPS, None, weigh, tune))
    changed = ", ".join(f"{c.name} {c.before}->{c.after}" for c in found.changes if c.after != c.before)
    return found.model, spent, f"without {', '.join(found.blocks) or 'no block'}; {changed}"


def tune(bench: Bench, side: str) -> None:
    """Prune where that is ours to do, train, and write what came out."""
    path = bench.file(side, ".json")
    if path.is_file():
        return
    started, spent, told = time.perf_counter(), 0, ""
    if side.startswith("ours"):
        model, spent, told = ours(bench, steps=side == "ours-steps")
    else:
        model = load(bench.file("teacher" if side == "dense" else "torch-pruning-cut"))
    before = bench.score(model)
    model = bench.taught(model, bench.settings(bench.given.epochs - spent), start=spent)
    save(model, bench.file(side))
    whole, left = (totals(m, STEPS) for m in (load(bench.file("teacher")), model))
    found = {
        "side": side, "seed": bench.seed, "accuracy": bench.score(model), "before": before,
        "cut": whole.multiply_adds / left.multiply_adds, "parameters": left.parameters / whole.parameters,
        "epochs": bench.given.epochs, "seconds": time.perf_counter() - started, "told": told,
    }  # fmt: skip
    path.write_text(json.dumps(found))
    print(line(found), flush=True)


def line(found: dict) -> str:
    return (
        f"seed {found['seed']}: {found['side']} {found['accuracy']:.2f} ({found['before']:.2f} before training), "
        f"multiply-adds cut {found['cut']:.2f} x, {found['parameters']:.0%} of the parameters, "
        f"{found['epochs']} epochs in {found['seconds']:.0f} s"
    )


def report(given: argparse.Namespace) -> None:
    found = [json.loads(path.read_text()) for path in sorted(given.work.glob("*-*.json"))]
    means: dict[str, float] = {}
    for side in SIDES:
        mine = [one for one in found if one["side"] == side]
        for one in mine:
            print(line(one))
        if mine:
            means[side] = float(np.mean([one["accuracy"] for one in mine]))
            error = float(np.std([one["accuracy"] for one in mine])) / math.sqrt(len(mine))
            cut = min(one["cut"] for one in mine)
            print(f"{side}: mean {means[side]:.2f} (standard error {error:.2f}), cut {cut:.2f} x at least")
    short = [one for one in found if one["side"] != "dense" and one["cut"] < given.cut * 0.999]
    for one in short:
        print(f"seed {one['seed']}: {one['side']} is cut {one['cut']:.2f} x only")
    if not {"dense", "ours", "torch-pruning"} <= means.keys():
        raise SystemExit("some stages are missing")
    margins = [means["ours"] - means[other] for other in ("dense", "torch-pruning")]
    print(f"ours over dense {margins[0]:+.2f}, over Torch-Pruning {margins[1]:+.2f}")
    emit("pruning_resnet56_least_margin", min(margins), goal=0.0, unit="points")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "out" / "pruning_resnet56")
    parser.add_argument("--stage", choices=("all", "teach", "peer", "tune", "report"), default="all")
    parser.add_argument(
        "--source",
        type=Path,
        help="a ResNet56 to start from, like one of benchmarks.training.unseen ({seed} stands for the seed); "
        "else the published one",
    )
    parser.add_argument("--peer", type=Path, default=PEER, help="the Python that has Torch-Pruning")
    parser.add_argument("--only", choices=SIDES, action="append", help="of the sides, these")
    parser.add_argument("--seed", type=int, help="this one alone")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda", "auto"))
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--epochs", type=int, default=100, help="of each side, after the teacher")
    parser.add_argument("--teach-epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rate", type=float, default=0.02, help="highest learning rate, of all")
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--hard", type=float, default=0.3, help="share of the labels in the loss")
    parser.add_argument("--cut", type=float, default=3.0, help="of the multiply-adds")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--round-epochs", type=int, default=3, help="of training after each round but the last"
    )
    parser.add_argument("--importance", default="fisher")
    parser.add_argument("--blocks", action="store_true", help="let whole blocks compete at any width, too")
    parser.add_argument("--rows", type=int, help="of the training pictures, these many, to try things out")
    given = parser.parse_args()
    sides = given.only or list(SIDES)
    for seed in [given.seed] if given.seed is not None else range(given.seeds):
        if given.stage == "report":
            break
        bench = Bench(given, seed)
        if given.stage in ("all", "teach"):
            teacher(bench)
        if given.stage == "peer" or (given.stage == "all" and "torch-pruning" in sides):
            peer(bench)
        for side in sides if given.stage in ("all", "tune") else ():
            tune(bench, side)
    if given.stage in ("all", "report"):
        report(given)


if __name__ == "__main__":
    main()
