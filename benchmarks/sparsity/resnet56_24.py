"""What the pattern 2:4 costs a ResNet56, against the same network trained alike without zeros.

    python -m benchmarks.sparsity.resnet56_24 [--device cuda] [--epochs 40] [--parallel] [--seeds 1] [--source MODEL]

See `benchmarks.sparsity.sides` for what both sides share. The pattern comes by magnitude, to ever more groups of four
inputs, in the first third of the training. The first layer has three inputs and stays dense.
"""

from __future__ import annotations

import numpy as np

from farrier_converters.passes.sparsify import SparsifyOptions

from ..figure import emit
from .sides import one_seed, parser


def main() -> None:
    arguments = parser(__doc__ or "", epochs=40, rate=0.05).parse_args()
    options = SparsifyOptions(pattern="2:4", schedule="cubic", end=0.34, updates=30)
    found = [one_seed("resnet56", options, seed, arguments) for seed in range(arguments.seeds)]
    report = found[0].found.report
    follows = sum(layer.follows for layer in report.layers)
    print(
        f"{follows} of {len(report.layers)} layers have the pattern; dense: {[one.label for one in report.left]}"
    )
    emit(
        "sparsity_24_resnet56_drop",
        float(np.mean([s.drop for s in found])),
        goal=0.3,
        unit="points",
        at_most=True,
    )


if __name__ == "__main__":
    main()
