"""What each precision is worth: file size, time and loss, on a convolution net and two transformers; file sizes.

    python -m benchmarks.quantization.precisions [--shared-data ../shared/data] [--sizes-only] [--only resnet20]

First a table for docs/quantization.md: nets of the zoo in every precision that `farrier optimize --precision` knows and
that needs no rows to train on (`--precisions` names others), on their own calibration and evaluation rows, latencies
taken in turns (batch 1, one thread). Then the sizes of networks above 1 MB whose weights dominate, in INT8 and in INT4,
against the float file as it came. The figures are the least ratios; the last line is INT4's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from farrier.optimization import recipe
from farrier_contracts import targets
from farrier_converters import measure, model, passes
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.search import WAYS, Candidate, plan

from .. import networks
from ..figure import emit
from ..toolchains.one_command import resnet50
from ..zoo import Net, Store, load
from ..zoo.net import points
from ..zoo.store import DEFAULT
from .contest import Contest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ("resnet56", "sst2-transformer", "vit-cifar")
SIZED = ("resnet56", "ultraface", "anomaly")  # besides the networks of random weights
GOALS = {"int8": 3.9, "int4": 7.5}
LEAST_BYTES = 1_000_000
ROUNDS = measure.LatencySettings(rounds=9, most_rounds=18)


def build(source: model.Model, candidate: Candidate, batches: list[dict[str, np.ndarray]]) -> model.Model:
    """Apply a candidate's passes, as `farrier optimize` would."""
    context = passes.Context(arithmetic=candidate.toolchain.arithmetic, calibration=lambda: iter(batches))
    for step in candidate.steps:
        source = passes.get(step.name).run(source, recipe.options(step), context)
    return shrink(source)


def candidates(names: Iterable[str] = tuple(WAYS)) -> list[Candidate]:
    """Return the first way to each precision on this machine."""
    return [next(c for c in plan(targets.host(), [name]) if c.precision == name) for name in names]


def table(net: Net, store: Store, precisions: list[str]) -> None:
    """Print one net in these precisions."""
    print(f"\n{net.name}: {net.rows} answers, {net.metric}")
    print("| precision | size | smaller | time | faster | loss, points |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(net, store, Path(folder))
        source = model.load(net.path)
        paths = {"float": net.path}
        for candidate in candidates(precisions):
            paths[candidate.name] = Path(folder) / f"{candidate.name}.onnx"
            model.save(build(source, candidate, net.stacked()), paths[candidate.name])
        times = contest.latencies(paths, ROUNDS)
        scores = {name: points(contest.credits(path)) for name, path in paths.items()}
        sizes = {name: path.stat().st_size for name, path in paths.items()}
    for name, size in sizes.items():
        time, base = times.get(name, float("nan")), times["float"]
        print(
            f"| {name} | {size / 1e3:.0f} kB | {sizes['float'] / size:.2f}x | {time:.3f} ms | {base / time:.2f}x "
            f"| {scores['float'] - scores[name]:+.2f} |",
            flush=True,
        )


def noise(source: model.Model) -> list[dict[str, np.ndarray]]:
    """Return calibration rows that only the size of a file may depend on."""
    rng = np.random.default_rng(0)
    shapes = {t.name: [max(size, 1) for size in t.shape] for t in source.inputs}
    return [{name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}]


def sized(store: Store) -> Iterator[tuple[str, model.Model, list[dict[str, np.ndarray]], int]]:
    """Yield (name, network, calibration rows, bytes of the float file)."""
    for name in SIZED:
        try:
            net = load(name, store)
        except FileNotFoundError as error:
            print(f"{name}: left out: {error}")
            continue
        yield name, model.load(net.path), net.stacked()[:1], net.path.stat().st_size
    random = {"mobilenet-v2": networks.mobilenet_v2(), "vgg": networks.vgg(), "resnet50": resnet50()}
    for name, proto in random.items():
        source = model.from_proto(proto, name)
        yield name, source, noise(source), proto.ByteSize()


def sizes(store: Store) -> None:
    """Print how much smaller INT8 and INT4 files are, and emit the least ratios of networks above 1 MB."""
    least = dict.fromkeys(GOALS, float("inf"))
    print(f"\n{'network':16}{'float':>12}" + "".join(f"{name:>20}" for name in GOALS))
    for name, source, batches, size in sized(store):
        line = f"{name:16}{size / 1e6:9.2f} MB"
        for precision in GOALS:
            candidate = next(c for c in candidates() if c.name == precision)
            small = build(source, candidate, batches).proto.ByteSize()
            line += f"{small / 1e6:9.2f} MB {size / small:6.2f}x"
            if size >= LEAST_BYTES:
                least[precision] = min(least[precision], size / small)
        print(line + ("" if size >= LEAST_BYTES else "  below 1 MB: does not count"), flush=True)
    for precision, goal in GOALS.items():
        emit(f"{precision}_file_size", least[precision], goal=goal, unit="x smaller")


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--cache", type=Path, default=DEFAULT)
    arguments.add_argument("--sizes-only", action="store_true")
    arguments.add_argument("--only", default=",".join(TABLE), help="nets of the table, separated by commas")
    arguments.add_argument("--precisions", default=",".join(w for w in WAYS if not w.endswith("qat")))
    given = arguments.parse_args()
    store = Store(given.shared_data, given.cache)
    for name in () if given.sizes_only else given.only.split(","):
        try:
            table(load(name, store), store, given.precisions.split(","))
        except (FileNotFoundError, ImportError) as error:
            print(f"{name}: left out: {error}")
    sizes(store)


if __name__ == "__main__":
    main()
