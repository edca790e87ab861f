"""What INT8 costs in accuracy on real networks, against ONNX Runtime's own quantizer and NNCF.

    make nncf                                  # NNCF in an environment of its own; without it, it is left out
    python -m benchmarks.quantization.int8_accuracy [--shared-data ../shared/data] [--only resnet20,digits]
                                                    [--figure FIGURE]

Every net of the zoo is quantized from the same calibration rows, by Farrier in the INT8 ways of `farrier optimize`
(`int8` is the plain one; `ours` is the one that its search would deliver: the fastest within its budget), by ONNX
Runtime (pre-processing, QDQ, per channel, u8s8; MinMax, which is its default, and the best of Entropy and
Percentile besides) and by NNCF with its defaults, and plays the same evaluation rows in the same engine. Drop is
the float score less the INT8 score, in points; `noise` is two standard errors of the difference between our drop
and ONNX Runtime's, from the answers in which the two differ. Latencies are taken in turns, batch 1, one thread.
Peers' files, trained nets and scores are kept in a cache folder; `--fresh` plays again.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from farrier_converters.measure import LatencySettings
from farrier_converters.search.choose import LATENCY_TOLERANCE, Figures, fastest

from ..figure import emit
from ..peers import PEERS
from ..zoo import NETS, Net, Store, load
from ..zoo.store import DEFAULT
from .contest import FLOAT, OURS, Contestant, play

ROOT = Path(__file__).resolve().parents[2]
QUICK = LatencySettings(rounds=9, most_rounds=18)
BUDGET = 0.01  # the drop that `farrier optimize` allows where nothing else is said
HEADLINE = ("ort", "nncf")  # whose drop ours may never exceed


@dataclass(frozen=True)
class Row:
    """One net's figures."""

    net: Net
    by_name: dict[str, Contestant]

    def drop(self, name: str) -> float | None:
        base, found = self.by_name[FLOAT].score, self.by_name.get(name)
        return None if base is None or found is None or found.score is None else base - found.score

    def best_ort(self) -> float | None:
        drops = [self.drop(n) for n in self.by_name if n.startswith("ort")]
        return min((d for d in drops if d is not None), default=None)

    def delivered(self) -> str:
        """Return which of Farrier's INT8 ways its search would deliver; the default one where none was timed."""
        found = [
            Figures(n, (self.drop(n) or 0.0) / 100, c.p50_ms, c.bytes)
            for n, c in self.by_name.items()
            if n != FLOAT and n not in PEERS and c.p50_ms is not None
        ]
        allowed = [f for f in found if f.drop <= BUDGET]
        return fastest(allowed, tolerance=LATENCY_TOLERANCE).name if allowed else OURS

    def excess(self, peer: str) -> tuple[float, float] | None:
        """Return how much larger our drop is than a peer's, a gain being no drop, and two standard errors of it."""
        name = self.delivered()
        ours, theirs = self.drop(name), self.drop(peer)
        if ours is None or theirs is None:
            return None
        a, b = (self.by_name[n].credits for n in (name, peer))
        noise = 0.0
        if a is not None and b is not None and a.size > 1:
            noise = 200.0 * float(np.std(a.astype(float) - b)) / a.size**0.5
        return max(ours, 0.0) - max(theirs, 0.0), noise

    def speed(self, peer: str) -> float | None:
        """Return a peer's latency over ours; a peer's file that lost more than the budget is nobody's to deliver."""
        if (self.drop(peer) or 0.0) > 100 * BUDGET:
            return None
        ours, theirs = self.by_name[self.delivered()].p50_ms, self.by_name.get(peer)
        return theirs.p50_ms / ours if ours and theirs is not None and theirs.p50_ms else None


HEAD = (
    f"{'net':17}{'float':>7}{'int8':>8}{'ours':>8}{'ORT':>8}{'best ORT':>9}{'NNCF':>7}{'noise':>7}"
    f"{'float ms':>9}{'ours':>9}{'ORT':>9}{'NNCF':>9}  delivered"
)


def line(row: Row) -> str:
    """Return a row of the printed table."""
    name = row.delivered()
    cells = [f"{row.net.name:17}{row.by_name[FLOAT].score:7.2f}"]
    for drop in (row.drop(OURS), row.drop(name), row.drop("ort"), row.best_ort(), row.drop("nncf")):
        cells.append(f"{drop:8.2f}" if drop is not None else f"{'-':>8}")
    excess = row.excess("ort")
    cells.append(f"{excess[1]:7.2f}" if excess else f"{'-':>7}")
    times = [row.by_name.get(n) for n in (FLOAT, name, "ort", "nncf")]
    cells += [f"{c.p50_ms:9.3f}" if c is not None and c.p50_ms else f"{'-':>9}" for c in times]
    return "".join(cells) + f"  {name:12} {row.net.rows} answers, {row.net.metric}; {row.net.note}"


def figures(rows: list[Row]) -> dict[str, tuple[float, float, bool]]:
    """Return each figure with its goal and whether it is an upper bound."""
    drops = [d for row in rows if (d := row.drop(row.delivered())) is not None]
    found = {
        "int8_median_drop": (statistics.median(drops), 0.15, True),
        "int8_worst_drop": (max(drops), 0.5, True),
    }
    for peer in HEADLINE:
        excess = [e for row in rows if (e := row.excess(peer)) is not None]
        if excess:
            found[f"int8_worst_excess_over_{peer}"] = (max(e for e, _ in excess), 0.0, True)
            beyond = max(e - noise for e, noise in excess)
            found[f"int8_worst_excess_over_{peer}_beyond_noise"] = (beyond, 0.0, True)
        speeds = [s for row in rows if (s := row.speed(peer)) is not None]
        if speeds:
            found[f"int8_slowest_against_{peer}"] = (min(speeds), 1.0, False)
    return found


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shared-data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--cache", type=Path, default=DEFAULT)
    parser.add_argument("--only", default=",".join(NETS), help="nets, separated by commas")
    parser.add_argument("--peers", default=",".join(PEERS), help="peers, separated by commas")
    parser.add_argument("--figure", default="int8_worst_drop", help="the one that the last line gives")
    parser.add_argument("--fresh", action="store_true", help="play again what was scored before")
    parser.add_argument("--no-latency", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    store = Store(options.shared_data, options.cache)
    peers = [name for name in options.peers.split(",") if name]
    rows = []
    print(HEAD)
    for name in options.only.split(","):
        began = time.monotonic()
        try:
            net = load(name, store)
        except (FileNotFoundError, ImportError) as error:
            print(f"{name:16} left out: {error}")
            continue
        latency = None if options.no_latency else QUICK
        found = play(net, store, peers, fresh=options.fresh, latency=latency)
        rows.append(Row(net, {c.name: c for c in found}))
        print(line(rows[-1]), f"({time.monotonic() - began:.0f} s)", flush=True)
        for contestant in found:
            if contestant.failure:
                print(f"{'':16} {contestant.failure}")
    results = figures(rows)
    for name in sorted(results, key=lambda n: n == options.figure):
        value, goal, at_most = results[name]
        emit(name, value, goal=goal, unit="x" if "slowest" in name else "points", at_most=at_most)


if __name__ == "__main__":
    main()
