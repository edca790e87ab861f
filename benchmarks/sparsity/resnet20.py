"""What 90 % zeros without a pattern cost a ResNet20, against the same network trained alike without zeros.

    python -m benchmarks.sparsity.resnet20 [--device cuda] [--epochs 100] [--parallel] [--source MODEL] [--ratio 0.9]

See `benchmarks.sparsity.sides` for what both sides share. Sparsity is by magnitude over the whole network and rises
along a cubic schedule in the first half of the training.
"""

from __future__ import annotations

import numpy as np

from farrier_converters.passes.sparsify import SparsifyOptions

from ..figure import emit
from .sides import one_seed, parser


def main() -> None:
    made = parser(__doc__ or "", epochs=100, rate=0.05)
    made.add_argument("--ratio", type=float, default=0.9)
    made.add_argument("--scope", default="global")
    arguments = made.parse_args()
    options = SparsifyOptions(
        ratio=arguments.ratio, scope=arguments.scope, schedule="cubic", end=0.5, updates=100
    )
    found = [one_seed("resnet20", options, seed, arguments) for seed in range(arguments.seeds)]
    for row in found[0].found.report.rows():
        print("  ".join(row))
    emit(
        "sparsity_resnet20_drop",
        float(np.mean([s.drop for s in found])),
        goal=1.0,
        unit="points",
        at_most=True,
    )


if __name__ == "__main__":
    main()
