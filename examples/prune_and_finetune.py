"""Prune a ResNet20 in rounds, fine-tuning between them, so that half of the multiply-adds go and little accuracy does.

    python examples/prune_and_finetune.py resnet20.onnx cifar10_jpg_train_10000.zip smaller.onnx [--speedup 2]
                                          [--rounds 3] [--epochs 2] [--pictures 4000]

The first file comes from examples/resnet20.py, the second holds the pictures as .../CLASS/NUMBER.jpg. Channels are
weighed by gradients (Fisher information) anew in each round. The dense network is fine-tuned for as many epochs on the
same pictures, as the control. A few minutes of one processor core at the defaults; more epochs bring more back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from qat import pictures

from farrier_converters import model, passes
from farrier_converters.graph import run
from farrier_converters.passes.prune import PruneOptions, prune
from farrier_converters.training.augment import named
from farrier_converters.training.data import Rows

BATCH = 64  # rows


def main() -> None:
    """Prune and train the network named first on the pictures named second, and write it to the third name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("network", "archive", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--speedup", type=float, default=2.0, help="how many times fewer multiply-adds")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="of training, after each round")
    parser.add_argument("--pictures", type=int, default=4000, help="to train on; half as many judge")
    given = parser.parse_args()
    images, labels = pictures(given.archive, given.pictures * 3 // 2)
    train, test = slice(None, given.pictures), slice(given.pictures, None)

    network = model.load(given.network)
    name = network.inputs[0].name
    stream = Rows(
        {name: images[train]},
        labels[train],
        batch=BATCH,
        augment=named(("crop", "mirror")),
    )
    context = passes.Context(training=stream)

    def tuned(network: model.Model, epochs: int) -> model.Model:
        step = passes.get("finetune")
        return step.run(network, step.options(fit={"epochs": epochs}), context)

    def accuracy(network: model.Model) -> float:
        session = run.session(network.proto)
        scores: list = [
            session.run(None, {name: images[test][i : i + 250]})[0] for i in range(0, len(labels[test]), 250)
        ]
        return float((np.concatenate(scores).argmax(1) == labels[test]).mean())

    options = PruneOptions(speedup=given.speedup, rounds=given.rounds, fit={"epochs": given.epochs})
    found = prune(network, options, context)
    smaller = tuned(found.model, given.epochs)
    control = tuned(network, given.rounds * given.epochs)
    model.save(smaller, given.out)

    print(f"as it came {accuracy(network):.2%}, fine-tuned {accuracy(control):.2%}")
    cut = found.before.multiply_adds / found.after.multiply_adds
    blocks = ", ".join(found.blocks) or "no block"
    print(f"with {cut:.2f} times fewer multiply-adds {accuracy(smaller):.2%}; without {blocks}")


if __name__ == "__main__":
    main()
