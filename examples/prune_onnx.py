"""Prune an ONNX file in one shot, with numpy, onnx and ONNX Runtime alone: no PyTorch, no training, no labels.

    python examples/prune_onnx.py model.onnx smaller.onnx [--ratio 0.3] [--rows rows.npz]

ROWS holds a few hundred inputs under the model's own names. With them, channels are weighed by what they bring to the
layers that read them, and the weights that stay are fitted again, layer by layer, so that each gives what it gave
before. Without rows only the weights are looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from farrier_converters import model
from farrier_converters.passes import Context
from farrier_converters.passes.prune import PruneOptions, prune

BATCH, ROWS = 32, 512


def main() -> None:
    """Prune the network named first and write it to the second name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("network", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--ratio", type=float, default=0.3, help="share of the multiply-adds that goes")
    parser.add_argument("--rows", type=Path)
    given = parser.parse_args()
    network = model.load(given.network)

    def calibration() -> Iterator[dict[str, np.ndarray]]:
        with np.load(given.rows) as arrays:
            rows = {spec.name: arrays[spec.name][:ROWS] for spec in network.inputs}
        for start in range(0, len(next(iter(rows.values()))), BATCH):
            yield {name: array[start : start + BATCH] for name, array in rows.items()}

    context = Context(calibration=calibration if given.rows else None)
    found = prune(network, PruneOptions(ratio=given.ratio), context)
    model.save(found.model, given.out)

    print(f"importance: {found.importance}; PyTorch loaded: {'torch' in sys.modules}")
    print(f"blocks that went: {', '.join(found.blocks) or 'none'}")
    for change in found.changes:
        if change.before != change.after:
            print(f"{change.name}: {change.before} -> {change.after} channels")
    cut = found.before.multiply_adds / found.after.multiply_adds
    print(
        f"{cut:.2f} times fewer multiply-adds, {found.after.parameters / found.before.parameters:.0%} of the parameters"
    )
    if found.note:
        print(found.note)


if __name__ == "__main__":
    main()
