"""What INT8 costs in accuracy when there is no data to calibrate with.

    python -m benchmarks.quantization.int8_data_free [--shared-data ../shared/data] [--only resnet20,digits] [--all]

Every classifier of the zoo is quantized as `farrier optimize MODEL` does it without --data and --calib (made-up inputs
in the moments that the network was trained with, a twin that imposes them), and from real calibration rows beside
it, in the arithmetic of VNNI; both and the float network play the same real evaluation rows. `naive` calibrates on
standard normal noise, as most tools without data do. Drops are in points; the figure is the worst data-free one.
`--all` plays the zoo's other nets too (they do not count).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from farrier_contracts.targets import Arithmetic
from farrier_converters import data, model, passes
from farrier_converters.graph import run
from farrier_converters.quantize import datafree

from ..figure import emit
from ..zoo import NETS, Net, Store, load
from ..zoo.store import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.6
BATCH = 8

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]


def score(net: Net, graph: model.Model) -> float:
    session = run.session(graph.proto)
    outputs = [output.name for output in session.get_outputs()]
    return 100 * float(np.mean(net.play(lambda feeds: [np.asarray(v) for v in session.run(outputs, feeds)])))


def quantized(source: model.Model, batches: Batches, twin: model.Model | None = None) -> model.Model:
    context = passes.Context(Arithmetic("u8"), batches, twin=twin)
    for name in ("clean", "fuse", "int8"):
        technique = passes.get(name)
        source = technique.run(source, technique.options(), context)
    return source


def rows(made: data.Dataset, size: int) -> Batches:
    return lambda: (feeds for feeds, _ in made.batches(made.fixed_batch or size))


def drops(net: Net) -> dict[str, float]:
    source = model.load(net.path)
    batch = min(net.batch, BATCH)
    made, noise = rows(datafree.imagine(source), batch), rows(data.random(source.inputs), batch)
    ways = {
        "real data": quantized(source, lambda: iter(net.stacked())),
        "no data": quantized(source, made, datafree.twin(source, made)),
        "naive": quantized(source, noise),
    }
    base = score(net, source)
    return {name: base - score(net, graph) for name, graph in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=DEFAULT)
    parser.add_argument("--only", default=",".join(NETS))
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    worst = []
    for name in arguments.only.split(","):
        try:
            net = load(name, Store(arguments.shared_data, arguments.cache))
        except (FileNotFoundError, ImportError) as error:
            print(f"{name:18} left out: {error}")
            continue
        if net.metric != "accuracy" and not arguments.all:
            continue
        found = drops(net)
        print(f"{name:18} {net.metric:10}", "  ".join(f"{k} {v:6.2f}" for k, v in found.items()), flush=True)
        if net.metric == "accuracy":
            worst.append(found["no data"])
    emit("int8_data_free_drop", max(worst), goal=GOAL, unit="points", at_most=True)


if __name__ == "__main__":
    main()
