"""What pruned networks gain in time for what they lose in multiply-adds: one thread, float and INT8.

    python -m benchmarks.pruning.latency [--shared-data ../shared/data] [--engine E] [--precision P] [--network N]

Each network is pruned by the pass `prune` at its defaults, with this machine's staircase of the engine and precision
(measured first, unless `farrier bench --staircase` did), to shares of its multiply-adds from 10 to 80 %. It may stop
short of a share where fewer channels would not make it faster; blocks may go too. Dense and pruned networks take turns
in one process, and each one's time is its shortest call. Efficiency is (dense time / pruned time) / (dense
multiply-adds / pruned ones). The figure is the geometric mean of efficiencies of the engine and precision that does
worst, over all shares; the lines before it say what was slowest against its dense network, and the same mean at 30 %.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier import staircase
from farrier_converters import passes
from farrier_converters.model import Model
from farrier_converters.passes.prune import prune
from farrier_converters.pruning.options import PruneOptions
from farrier_converters.pruning.staircase import Staircase
from farrier_converters.pruning.staircase.measure import MeasureSettings, timed, timing_plan

from ..figure import emit
from .staircase_prediction import ENGINES, PRECISIONS, artifact, built, sources

ROOT = Path(__file__).resolve().parents[2]
GOAL, DENSE = 0.85, 1.0
RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # of multiply-adds that go
USUAL = 0.3  # the ratio at which cuts to any width had made networks slower
SETTINGS = MeasureSettings(round_ns=2_000_000, min_calls=6)


@dataclass(frozen=True)
class Found:
    """One pruned network against its dense one; the fields are shares of the dense one's."""

    name: str
    ratio: float
    multiply_adds: float
    time: float
    predicted: float

    @property
    def efficiency(self) -> float:
        return self.multiply_adds / self.time


def compare(name: str, source: Model, table: Staircase, folder: Path) -> list[Found]:
    """Prune a network to every ratio, and time them all in turns."""
    dense = built(source, table.engine, "fp32")
    runs = [prune(dense, PruneOptions(ratio=ratio), passes.Context(staircase=table)) for ratio in RATIOS]
    artifacts = [
        artifact(built(model, table.engine, table.precision), table.engine, folder / f"{name}{i}")
        for i, model in enumerate([dense, *(run.model for run in runs)])
    ]
    ns, _ = timed(timing_plan(table.engine, artifacts, settings=SETTINGS))
    return [
        Found(
            name,
            ratio,
            run.after.multiply_adds / run.before.multiply_adds,
            time / ns[0],
            run.after.ms / run.before.ms,
        )
        for ratio, run, time in zip(RATIOS, runs, ns[1:], strict=True)
    ]


def mean(found: list[Found]) -> float:
    """Return the geometric mean of efficiencies."""
    return float(np.exp(np.mean(np.log([one.efficiency for one in found]))))


def main() -> None:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    arguments.add_argument("--engine", choices=ENGINES)
    arguments.add_argument("--precision", choices=PRECISIONS)
    arguments.add_argument("--network")
    given = arguments.parse_args()
    means, usual, all_found = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        networks = dict(sources(given.shared_data, Path(folder)))
        for engine in [given.engine] if given.engine else ENGINES:
            for precision in [given.precision] if given.precision else PRECISIONS:
                table, here = staircase(engine, precision), []
                for name in [given.network] if given.network else networks:
                    for found in compare(name, networks[name], table, Path(folder)):
                        here.append(found)
                        print(
                            f"{engine:11} {precision:4} {name:13} asked {found.ratio:.0%}: multiply-adds "
                            f"x{found.multiply_adds:.3f}  time x{found.time:.3f} (predicted x{found.predicted:.3f})  "
                            f"efficiency {found.efficiency:.2f}",
                            flush=True,
                        )
                means.append(mean(here))
                usual.append(mean([found for found in here if found.ratio == USUAL]))
                enough = sum(found.efficiency >= GOAL for found in here)
                print(
                    f"{engine:11} {precision:4} geometric mean {means[-1]:.3f}, {usual[-1]:.3f} at {USUAL:.0%}; "
                    f"{enough} of {len(here)} at {GOAL}"
                )
                all_found += here
    slowest = max(found.time for found in all_found)
    emit("pruned_time_at_worst", slowest, goal=DENSE, unit="x the dense network's", at_most=True)
    emit("pruning_efficiency_at_30", min(usual), goal=GOAL, unit="x speed / x fewer multiply-adds")
    emit("pruning_efficiency", min(means), goal=GOAL, unit="x speed / x fewer multiply-adds")


if __name__ == "__main__":
    main()
