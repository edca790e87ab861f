"""What fine-tuning does to a ResNet20 that keeps its batch norms, and to one with the norms folded, at a usual rate.

    python -m benchmarks.training.finetuning [--shared-data ../shared/data] [--train 1280] [--test 1000] [--epochs 1]
                                             [--seed 0]

Pictures of cifar10_jpg, crops and mirrors, batches of 64; every accuracy is measured in ONNX Runtime on other pictures.
The range test lowers the rate where the network does not stand it. The figure is the worst change of accuracy with
the settings as they come.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from farrier_contracts.errors import InputError
from farrier_converters import passes
from farrier_converters.model import Model
from farrier_converters.passes import Context
from farrier_converters.passes.finetune import FinetuneOptions, train
from farrier_converters.training.augment import named
from farrier_converters.training.data import Rows

from ..cifar import ROOT, accuracy, pictures, resnet20
from ..figure import emit

WAYS = {
    "as it comes": {},
    "SGD 0.01": {"optimizer": "sgd", "learning_rate": 0.01},
    "as it comes, no range test": {"test_rate": False},
    "SGD 0.01, no range test": {"optimizer": "sgd", "learning_rate": 0.01, "test_rate": False},
}


def one(
    model: Model, rows: Rows, settings: dict, test: tuple[np.ndarray, np.ndarray]
) -> tuple[float | None, str]:
    """Return the accuracy after training (None: it diverged), and what was said."""
    said: list[str] = []
    context = Context(
        training=rows, progress=lambda stage, _share: said.append(stage) if stage.startswith("note") else None
    )
    try:
        found = train(model, FinetuneOptions(settings), context)
    except InputError as error:
        return None, str(error)
    return accuracy(found.model, *test), "; ".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--train", type=int, default=1280)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    source = resnet20(arguments.shared_data)
    images, labels = pictures(arguments.shared_data)
    order = np.random.default_rng(arguments.seed).permutation(len(images))
    learn, held = order[: arguments.train], order[-arguments.test :]
    rows = Rows(
        {"images": images[learn]}, labels[learn], seed=arguments.seed, augment=named(["crop", "mirror"])
    )
    folded = passes.get("fuse").run(source, passes.get("fuse").options(), Context())
    before = accuracy(source, images[held], labels[held])
    print(f"before: {before:.1f} %")
    changes = []
    for name, model in (("norms kept", source), ("norms folded", folded)):
        for way, settings in WAYS.items():
            started = time.perf_counter()
            full = {"epochs": arguments.epochs, "seed": arguments.seed, **settings}
            after, said = one(model, rows, full, (images[held], labels[held]))
            shown = "diverged" if after is None else f"{after:.1f} % ({after - before:+.1f})"
            print(f"{name}, {way}: {shown} in {time.perf_counter() - started:.0f} s {said}", flush=True)
            if way == "as it comes":
                changes.append(-100.0 if after is None else after - before)
    emit("finetuning_worst_change", min(changes), goal=0.0, unit="points")


if __name__ == "__main__":
    main()
