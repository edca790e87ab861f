"""One net of the zoo through Farrier and its peers: artifacts, scores, latencies.

Used by `benchmarks.quantization.int8_accuracy`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from farrier.optimization import recipe
from farrier_contracts import targets
from farrier_converters import measure, model, passes
from farrier_converters.graph.run import runtime_errors
from farrier_converters.graph.upgrade import upgrade
from farrier_converters.search import plan

from ..peers import PEERS, PeerFailure
from ..zoo import Net, Store
from ..zoo.net import digest, points, runner

PEER_OPSET = 13  # per-channel weights need it; peers get older graphs raised to it
FLOAT, OURS = "float", "int8"


@dataclass(frozen=True)
class Contestant:
    """One artifact of a net: the credit of each answer, its median latency in milliseconds, or why it has none."""

    name: str
    credits: np.ndarray | None = None
    p50_ms: float | None = None
    bytes: int = 0
    failure: str = ""

    @property
    def score(self) -> float | None:
        """In points."""
        return None if self.credits is None else points(self.credits)


@dataclass
class Contest:
    """Everything about one net; `fresh` forgets remembered scores of this machine."""

    net: Net
    store: Store
    folder: Path
    fresh: bool = False
    failures: dict[str, str] = field(default_factory=dict)

    @cached_property
    def target(self) -> targets.Target:
        """This machine, as far as ONNX Runtime goes: that is what the peers make files for."""
        host = targets.host()
        return replace(host, toolchains=tuple(t for t in host.toolchains if t.engine == "onnxruntime"))

    @cached_property
    def runtime(self) -> str:
        """What scores depend on besides the artifact."""
        return f"{onnxruntime.__version__} {self.target.name}"

    def artifacts(self, peers: Iterable[str]) -> dict[str, Path]:
        """Build the float baseline, each of Farrier's INT8 ways, and the peers' files."""
        found = {FLOAT: self._ours(FLOAT, "fp32")}
        for candidate in plan(self.target):
            if candidate.precision == "int8":
                found[candidate.name] = self._ours(candidate.name, candidate.name)
        for name in peers:
            try:
                found[name] = self._peer(name)
            except PeerFailure as failure:
                self.failures[name] = str(failure)
        return found

    def _ours(self, name: str, wanted: str) -> Path:
        candidate = next(c for c in plan(self.target) if c.name == wanted)
        context = passes.Context(
            arithmetic=candidate.toolchain.arithmetic, calibration=lambda: iter(self.net.stacked())
        )
        graph = model.load(self.net.path)
        for step in candidate.steps:
            graph = passes.get(step.name).run(graph, recipe.options(step), context)
        path = self.folder / f"{self.net.name}-{name}.onnx"
        model.save(graph, path)
        return path

    def _peer(self, name: str) -> Path:
        """Return a peer's file; they do not change with Farrier, so they are kept."""
        content = self.net.path.read_bytes()
        key = digest(
            name, PEERS[name].setting, content, *(a for feed in self.net.calibration for a in feed.values())
        )
        source = self.net.path
        if model.opset(onnx.load(source, load_external_data=False)) < PEER_OPSET:
            source = self.folder / f"{self.net.name}-raised.onnx"
            model.save(upgrade(model.load(self.net.path), PEER_OPSET), source)
        return self.store.file(
            f"{self.net.name}-{name}-{key}.onnx",
            lambda out: PEERS[name].quantize(source, self.net.calibration, out),
        )

    def credits(self, path: Path) -> np.ndarray:
        """Return the credit of each answer of an artifact, remembered by its bytes."""
        if self.fresh:
            return self.net.play(runner(path))
        key = digest(path.read_bytes(), self.net.evaluation, self.runtime)
        name = f"credits-{self.net.name}-{key}"
        return self.store.arrays(name, lambda: {"credits": self.net.play(runner(path))})["credits"]

    def latencies(self, paths: Mapping[str, Path], settings: measure.LatencySettings) -> dict[str, float]:
        """Return medians in milliseconds, all artifacts taking turns."""
        with ExitStack() as stack:
            children = {n: stack.enter_context(measure.Child(p, "onnxruntime")) for n, p in paths.items()}
            found = measure.measure(children, self.net.timed, batch=1, settings=settings)
        return {n: x.p50_ms for n, x in found.items() if isinstance(x, measure.Latency)}


def play(
    net: Net,
    store: Store,
    peers: Iterable[str],
    *,
    fresh: bool = False,
    latency: measure.LatencySettings | None,
) -> list[Contestant]:
    """Return every contestant of a net, the float baseline first."""
    with tempfile.TemporaryDirectory() as folder:
        contest = Contest(net, store, Path(folder), fresh)
        paths = contest.artifacts(peers)
        times = contest.latencies(paths, latency) if latency else {}
        found = []
        for name, path in paths.items():
            try:
                credits = contest.credits(path)
            except runtime_errors():
                contest.failures[name] = f"{name}: its file does not run"
                continue
            found.append(Contestant(name, credits, times.get(name), path.stat().st_size))
    return found + [Contestant(n, failure=why) for n, why in contest.failures.items()]
