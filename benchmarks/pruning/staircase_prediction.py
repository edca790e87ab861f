"""How well a latency staircase predicts what narrower networks gain, against the engine itself.

    python -m benchmarks.pruning.staircase_prediction [--shared-data ../shared/data] [--engine E] [--precision P]

Networks are cut at random to several widths (any, multiples of 4, 8 and 16), dense and cut ones take turns in one
process with one thread, and each one's time is its shortest call. Weights are as they come: time hangs on shapes. The
tables are measured first, unless they were before (`farrier bench --staircase`). The figure is the median over networks
and widths of |predicted - measured| / measured, of the time relative to the dense network's.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from farrier import staircase
from farrier_contracts import targets
from farrier_converters import model, passes
from farrier_converters.compilers.tflite import lower_model
from farrier_converters.graph.compact.shrink import shrink
from farrier_converters.model import Model
from farrier_converters.pruning.cut import cut
from farrier_converters.pruning.group import groups_of
from farrier_converters.pruning.staircase import Staircase, predict
from farrier_converters.pruning.staircase.measure import MeasureSettings, timed, timing_plan
from farrier_converters.tflite.write import write

from .. import networks
from ..figure import emit
from ..quantization.int8_over_fp32 import resnet20

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.1
SHARES = (0.9, 0.75, 0.5, 0.3)  # of channels that stay
STEPS = (1, 4, 8, 16)  # channels that widths are multiples of
ENGINES, PRECISIONS = ("onnxruntime", "litert"), ("fp32", "int8")


def sources(data: Path, folder: Path) -> Iterator[tuple[str, Model]]:
    """Yield the networks, those that the shared data lacks left out."""
    made = {"resnet56": networks.resnet56, "ds-cnn": networks.ds_cnn, "mobilenet-v2": networks.mobilenet_v2}
    for name, build in (made | {"vgg": networks.vgg, "u-net": networks.u_net}).items():
        yield name, model.from_proto(build(), name)
    try:
        yield "resnet20", model.load(resnet20(data, folder))
        yield "ultraface", model.load(data / "ultraface" / "models" / "onnx" / "version-RFB-320.onnx")
    except (OSError, model.InputError) as error:
        print(f"left out: {error}")


def narrower(dense: Model, share: float, step: int, rng: np.random.Generator) -> Model:
    """Return the model with about that share of each group's channels, in multiples of `step`, chosen at random."""
    groups, gone = groups_of(dense), []
    for group in groups.groups:
        keep = min(-(-round(group.size * share * rng.uniform(0.85, 1.0)) // step) * step, group.size)
        gone += list(rng.permutation(group.units)[max(keep, 1) :])
    return cut(groups, gone)


def built(source: Model, engine: str, precision: str) -> Model:
    """Return the model as the passes leave it for an engine."""
    toolchain = next(t for t in targets.host().toolchains if t.engine == engine)
    rng = np.random.default_rng(1)
    rows = [{s.name: rng.normal(size=[max(d, 1) for d in s.shape]).astype(np.float32) for s in source.inputs}]
    context = passes.Context(toolchain.arithmetic, lambda: iter(rows))
    quick = {"method": "minmax", "bias_correction": False, "even": False, "fit": engine == "onnxruntime"}
    steps = [("clean", {}), ("fuse", {}), *([("int8", quick)] if precision == "int8" else [])]
    for name, options in steps:
        technique = passes.get(name)
        source = technique.run(source, technique.options(**options), context)
    return source


def artifact(source: Model, engine: str, path: Path) -> dict:
    """Write what the engine loads."""
    if engine == "onnxruntime":
        model.save(shrink(source), path)
        return {"path": str(path), "options": {}}
    lowered = lower_model(source)
    path.write_bytes(write(lowered.file))
    return {"path": str(path), "options": dict(lowered.options)}


def errors(name: str, dense: Model, table: Staircase, folder: Path) -> list[tuple[float, float]]:
    """Return (predicted, measured) times relative to the dense network, for each of the narrower ones."""
    rng = np.random.default_rng(0)
    dense = built(dense, table.engine, "fp32")
    forms = [dense, *(narrower(dense, share, step, rng) for share in SHARES for step in STEPS)]
    artifacts = [
        artifact(built(form, table.engine, table.precision), table.engine, folder / f"{name}{i}")
        for i, form in enumerate(forms)
    ]
    plan = timing_plan(table.engine, artifacts, threads=1, settings=MeasureSettings(round_ns=2_000_000))
    ns, _ = timed(plan)
    guesses = [predict(form, table) for form in forms]
    pairs = [(g / guesses[0], t / ns[0]) for g, t in zip(guesses[1:], ns[1:], strict=True)]
    wrong = [abs(p - m) / m for p, m in pairs]
    guessed, took = (np.argsort(np.argsort(column)) for column in zip(*pairs, strict=True))
    ranks = np.corrcoef(guessed, took)[0, 1]
    print(
        f"{table.engine:12} {table.precision:5} {name:13} dense {ns[0] / 1e6:7.3f} ms, predicted {guesses[0]:7.3f}  "
        f"error of ratios: median {np.median(wrong):.1%}, worst {max(wrong):.1%}  rank correlation {ranks:.3f}",
        flush=True,
    )
    return pairs


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--engine", choices=ENGINES)
    arguments.add_argument("--precision", choices=PRECISIONS)
    given = arguments.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        dense = dict(sources(given.shared_data, Path(folder)))
        for engine in [given.engine] if given.engine else ENGINES:
            for precision in [given.precision] if given.precision else PRECISIONS:
                table = staircase(engine, precision)
                for name, source in dense.items():
                    found = errors(name, source, table, Path(folder))
                    wrong += [abs(p - m) / m for p, m in found]
    emit("staircase_error", float(np.median(wrong)), goal=GOAL, unit="of a ratio of times", at_most=True)


if __name__ == "__main__":
    main()
