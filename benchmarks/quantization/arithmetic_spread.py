"""How far the accuracy of one INT8 network lies apart over the integer arithmetics of processors.

    python -m benchmarks.quantization.arithmetic_spread [--shared-data ../shared/data] [--only resnet20,resnet56]

Each net of the zoo is quantized as `farrier optimize` does it, and its score is emulated on this machine in the
arithmetic of ONNX Runtime on x86 with VNNI and without, of ARM, and of an accelerator with one symmetric scale per
tensor (for which it is quantized anew). `before`: 8-bit weights everywhere. `after`: where pairs of products saturate,
7-bit weights. The figure is the largest spread after, in points.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from farrier_contracts.targets import ARITHMETICS, Arithmetic
from farrier_converters import model, passes, search
from farrier_converters.emulate import Emulator

from ..figure import emit
from ..zoo import NETS, Net, Store, load
from ..zoo.store import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
GOAL = 0.2  # points
STANDARD = "resnet20,resnet56"


def quantized(net: Net, arithmetic: Arithmetic, bits: int = 8) -> model.Model:
    """Return the net in INT8 as the plan's first candidate for an arithmetic is, with weights of at most `bits`."""
    graph = model.load(net.path)
    context = passes.Context(arithmetic, lambda: iter(net.stacked()))
    _, steps = search.WAYS["int8"][0]
    for step in search.suit(steps, arithmetic):
        technique = passes.get(step.name)
        options = {**step.options, "weight_bits": bits} if step.name == "int8" else step.options
        graph = technique.run(graph, technique.options(**options), context)
    return graph


def score(net: Net, graph: model.Model, arithmetic: Arithmetic) -> tuple[float, int]:
    """Return the score in points, and how many pairs of products saturated."""
    emulator = Emulator(graph, arithmetic)
    credits = net.play(lambda feeds: list(emulator.run(feeds).values()))
    return 100 * float(np.mean(credits)), sum(s.saturated for s in emulator.saturation.values())


def scores(net: Net, graph: model.Model) -> tuple[dict[str, float], int]:
    """Return the score on each kind of processor; exact sums are played once, rounding is the same there."""
    without, saturated = score(net, graph, ARITHMETICS["x86-avx2"])
    exact = score(net, graph, ARITHMETICS["x86-vnni"])[0] if saturated else without
    return {"x86-vnni": exact, "x86-avx2": without, "arm": exact}, saturated


def report(net: Net) -> float:
    """Print one net's scores before and after, and return the spread after."""
    print(f"{net.name:17} float   {score(net, model.load(net.path), ARITHMETICS['arm'])[0]:.2f}", flush=True)
    before, saturated = scores(net, quantized(net, ARITHMETICS["x86-vnni"]))
    after = before if not saturated else scores(net, quantized(net, ARITHMETICS["x86-avx2"]))[0]
    npu = ARITHMETICS["npu-per-tensor"]
    per_tensor, _ = score(net, quantized(net, npu), npu)
    for when, found in (("before", before), ("after", after)):
        everywhere = {**found, npu.name: per_tensor}
        told = "  ".join(f"{name} {value:.2f}" for name, value in everywhere.items())
        print(f"{net.name:17} {when:6}  {told}  spread {spread(everywhere):.2f}  rows {net.rows}", flush=True)
    print(f"{net.name:17} {saturated} saturated pairs before", flush=True)
    return spread({**after, npu.name: per_tensor})


def spread(values: dict[str, float]) -> float:
    return max(values.values()) - min(values.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=DEFAULT)
    parser.add_argument("--only", default=STANDARD, help=f"nets, by comma, or 'all' of: {', '.join(NETS)}")
    arguments = parser.parse_args()
    names = list(NETS) if arguments.only == "all" else arguments.only.split(",")
    store, worst = Store(arguments.shared_data, arguments.cache), 0.0
    for name in names:
        try:
            net = load(name, store)
        except (FileNotFoundError, ImportError) as error:
            print(f"{name:17} left out: {error}")
            continue
        worst = max(worst, report(net))
    emit("arithmetic_spread", worst, goal=GOAL, unit="points", at_most=True)


if __name__ == "__main__":
    main()
