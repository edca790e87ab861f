"""Run two models side by side over a stream of rows and keep, of each layer, a few sums: memory does not grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.edit import Graph, reads, standard
from ..model import Model
from .forced import FORCED, forced, with_outputs
from .pairs import Pair, pair
from .quantizers import ActivationQuantizer, Quantizers, find
from .sketch import Sketch

Batches = Callable[[], Iterator[dict[str, np.ndarray]]]
RESCALED = 0.05  # a channel is rescaled when its size differs by this share
RESCALED_LEFT = 0.01  # of a channel's squared values, at most, is then left unexplained
AGREE_DB = 12.0
MOST_DB = 150.0  # what stands for "no error at all"


@dataclass(frozen=True)
class ProbeSettings:
    """What bounds memory and time of a comparison."""

    chunk_elements: int = 1 << 23  # per row, of tensors looked at in one run: more take several runs
    threads: int = run.THREADS


@dataclass
class LayerSums:
    """Squared sums over all values of one tensor, in B's sizes: of A's values, B's error, the layer's own error.

    `channel_signal`, `channel_error` (own), `channel_bound` (largest magnitude) and `channel_drift` (B's error with its
    sign) are along `axis`.
    """

    axis: int = 1
    signal: float = 0.0
    error: float = 0.0
    own: float = 0.0
    count: int = 0
    channel_signal: np.ndarray | None = None
    channel_error: np.ndarray | None = None
    channel_bound: np.ndarray | None = None
    channel_drift: np.ndarray | None = None
    sketch: Sketch | None = None

    def add(self, a: np.ndarray, b: np.ndarray, own: np.ndarray) -> None:
        """Take one batch: the tensor in A, in B, and in B's layer fed with A's inputs."""
        wide = a.astype(np.float64)
        own_error, drift = np.square(wide - own), b - wide
        self.signal += float(np.square(wide).sum())
        self.error += float(np.square(drift).sum())
        self.own += float(own_error.sum())
        self.count += a.size
        if self.sketch is not None:
            self.sketch.add(a)
        if a.ndim > 1 and a.size:
            axes = tuple(axis for axis in range(a.ndim) if axis != self.axis % a.ndim)
            sums = (np.square(wide).sum(axis=axes), own_error.sum(axis=axes), drift.sum(axis=axes))
            self._channels(*sums, np.abs(a).max(axis=axes))

    def _channels(self, signal: np.ndarray, error: np.ndarray, drift: np.ndarray, bound: np.ndarray) -> None:
        if self.channel_signal is None or self.channel_error is None or self.channel_bound is None:
            self.channel_signal, self.channel_error, self.channel_drift = signal, error, drift
            self.channel_bound = bound
        elif self.channel_signal.shape == signal.shape:
            self.channel_signal += signal
            self.channel_error += error
            self.channel_drift = drift if self.channel_drift is None else self.channel_drift + drift
            self.channel_bound = np.maximum(self.channel_bound, bound)

    def mean_drift(self) -> np.ndarray | None:
        """Return the mean of B's error per channel, float64; None for a tensor without channels."""
        if self.channel_drift is None or not self.count:
            return None
        return self.channel_drift * (self.channel_drift.size / self.count)


@dataclass(frozen=True)
class Probed:
    """Two models, their pairs in B's order, what was summed up, and dtype and elements a row of each pair in A."""

    a: Model
    b: Model
    pairs: tuple[Pair, ...]
    sums: Mapping[str, LayerSums]
    quantizers: Quantizers
    dtypes: Mapping[str, np.dtype]
    unpaired: tuple[str, ...] = field(default=())

    def quantizer(self, p: Pair) -> ActivationQuantizer | None:
        """Return the quantizer of a pair's tensor in B."""
        return self.quantizers.activations.get(p.made)


def decibels(signal: float, error: float) -> float:
    """Return 10 log10(signal / error), within +-MOST_DB; a wrong value where all should be zero is the least."""
    if error <= 0:
        return MOST_DB
    if signal <= 0 or not math.isfinite(error):
        return -MOST_DB
    return float(np.clip(10 * math.log10(signal / error), -MOST_DB, MOST_DB))


def probe(
    a: Model,
    b: Model,
    batches: Batches,
    *,
    progress: Callable[[float], None] = lambda share: None,
    settings: ProbeSettings = ProbeSettings(),
) -> Probed:
    """Compare all pairs of float tensors over the batches, three runs each; raises InputError where that fails."""
    graph_a, graph_b = Graph(a), Graph(b)
    quantizers = find(graph_b)
    first = next(batches(), None)
    if first is None:
        raise InputError("the data holds no rows to compare on")
    pairs, sizes, dtypes = _comparable(a, b, pair(graph_a, graph_b, quantizers), first, settings)
    unpaired = tuple(
        n for node in graph_a.nodes for n in node.output if n and n not in {p.name for p in pairs}
    )
    sums = {
        p.name: LayerSums(_axis(graph_b, p), sketch=Sketch() if p.made in quantizers.activations else None)
        for p in pairs
    }
    chunks = _chunks(pairs, sizes, settings.chunk_elements)
    forced_b = forced(b, pairs, quantizers, dtypes)
    for number, chunk in enumerate(chunks):
        _run_chunk(
            (a, b), forced_b, pairs, chunk, batches(), sums, settings,
            lambda share, n=number: progress((n + share) / len(chunks)),
        )  # fmt: skip
    return Probed(a, b, tuple(pairs), sums, quantizers, dtypes, unpaired)


def _axis(b: Graph, p: Pair) -> int:
    """Return the axis that the readers of a tensor sum over: the last for matrices, 1 for convolutions."""
    readers = [node for name in p.read for node in b.readers.get(name, [])]
    return -1 if any(standard(node, "MatMul", "Gemm") for node in readers) else 1


def open_session(
    proto: onnx.ModelProto, what: str, *, threads: int, optimize: bool = False
) -> run.InferenceSession:
    """Open a graph; raises InputError that calls it `what`."""
    try:
        return run.session(proto, threads=threads, optimize=optimize)
    except run.runtime_errors() as error:
        raise InputError(f"ONNX Runtime cannot run {what}: {run.brief(error)}") from None


def call(
    session: run.InferenceSession, names: Sequence[str], feeds: dict[str, np.ndarray], what: str
) -> list:
    """Run once; raises InputError that calls the graph `what`."""
    try:
        return list(session.run(list(names), feeds))
    except run.runtime_errors() as error:
        raise InputError(f"the data does not fit {what}: {run.brief(error)}") from None


def _comparable(
    a: Model, b: Model, pairs: list[Pair], feeds: dict[str, np.ndarray], settings: ProbeSettings
) -> tuple[list[Pair], dict[str, int], dict[str, np.dtype]]:
    """Keep the pairs that are float and of one shape in both models, as one run shows."""
    one = _values(a, [p.name for p in pairs], feeds, "the first model", settings)
    two = _values(b, [p.result for p in pairs], feeds, "the second model", settings)
    kept, sizes, dtypes = [], {}, {}
    outputs = {spec.name for spec in a.outputs}
    sound = _outputs_agree(outputs, pairs, one, two)
    for p in pairs:
        x, y = one[p.name], two[p.result]
        if not all(isinstance(v, np.ndarray) and v.dtype.kind == "f" for v in (x, y)):
            continue
        extra = _extra(x.shape, y.shape)
        if extra is None:
            continue
        if sound and p.name not in outputs and rescaled(x, replace(p, extra=extra).narrowed(y)):
            continue
        kept.append(replace(p, extra=extra))
        sizes[p.name], dtypes[p.name] = x.size, x.dtype
    if not kept:
        raise InputError("the two models share no float tensor by name and shape; nothing can be compared")
    return kept, sizes, dtypes


def _extra(a: tuple[int, ...], b: tuple[int, ...]) -> int | None:
    """Return how many channels B's shape has more than A's, along axis 1; None where they differ otherwise."""
    if a == b:
        return 0
    alike = len(a) == len(b) > 1 and b[1] > a[1] and (a[0], *a[2:]) == (b[0], *b[2:])
    return b[1] - a[1] if alike else None


def _values(
    model: Model, names: list[str], feeds: dict[str, np.ndarray], what: str, settings: ProbeSettings
) -> dict[str, Any]:
    inner = [n for n in dict.fromkeys(names) if n not in feeds]
    session = open_session(with_outputs(model.proto, inner), what, threads=settings.threads)
    values = call(session, inner or [model.outputs[0].name], feeds, what)
    return {**feeds, **dict(zip(inner, values, strict=False))}


def _outputs_agree(outputs: set[str], pairs: list[Pair], one: dict[str, Any], two: dict[str, Any]) -> bool:
    """Whether the outputs are near: only then were channels rescaled on purpose, and scaled back behind."""
    found = [(one[p.name], two[p.result]) for p in pairs if p.name in outputs]
    found = [(x, y) for x, y in found if np.shape(x) == np.shape(y) and x.dtype.kind == "f"]
    return all(decibels(*_powers(x, y)) >= AGREE_DB for x, y in found)


def _powers(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    wide = a.astype(np.float64)
    return float(np.square(wide).sum()), float(np.square(wide - b).sum())


def rescaled(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether B holds the same channels (axis 1) in other sizes, as equalisation leaves them: no error to speak of."""
    if a.ndim < 2 or a.shape[1] < 2 or not np.isfinite(b).all():
        return False
    x, y = (np.moveaxis(v, 1, 0).reshape(v.shape[1], -1).astype(np.float64) for v in (a, b))
    power = np.square(x).sum(axis=1)
    slope = (x * y).sum(axis=1) / np.maximum(power, 1e-300)
    alive = (power > 0) & (slope > 0)
    if alive.sum() < 2:
        return False
    factors = np.log(slope[alive])
    left = np.square(y - slope[:, None] * x).sum(axis=1) / np.maximum(np.square(y).sum(axis=1), 1e-300)
    moved = np.abs(factors) > RESCALED
    return bool(np.median(left[alive]) < RESCALED_LEFT and moved.mean() > 0.5 and factors.std() > RESCALED)


def _chunks(pairs: list[Pair], sizes: Mapping[str, int], limit: int) -> list[list[Pair]]:
    chunks: list[list[Pair]] = [[]]
    total = 0
    for p in pairs:
        if chunks[-1] and total + sizes[p.name] > limit:
            chunks.append([])
            total = 0
        chunks[-1].append(p)
        total += sizes[p.name]
    return chunks


def _run_chunk(
    models: tuple[Model, Model],
    forced_b: onnx.ModelProto,
    pairs: list[Pair],
    chunk: list[Pair],
    batches: Iterator[dict[str, np.ndarray]],
    sums: Mapping[str, LayerSums],
    settings: ProbeSettings,
    progress: Callable[[float], None],
) -> None:
    a, b = models
    inputs = {spec.name for spec in a.inputs}
    results = [p.result for p in chunk]
    made = [r for r in results if r not in inputs]
    part = _part(forced_b, results)
    ask = {value.name for value in part.graph.input}
    forcing = [p for p in pairs if p.name + FORCED in ask]
    wanted = list(dict.fromkeys(p.name for p in (*forcing, *chunk)))
    inner = [n for n in wanted if n not in inputs]
    open_ = [
        open_session(with_outputs(a.proto, inner), "the first model", threads=settings.threads),
        open_session(with_outputs(b.proto, made), "the second model", threads=settings.threads),
        open_session(part, "the second model layer by layer", threads=settings.threads) if made else None,
    ]
    for count, feeds in enumerate(batches, start=1):
        values = (
            dict(zip(inner, call(open_[0], inner, feeds, "the first model"), strict=True)) if inner else {}
        )
        values |= {n: feeds[n] for n in wanted if n in inputs}
        ran = dict(zip(made, call(open_[1], made, feeds, "the second model"), strict=True)) if made else {}
        fed = {n: v for n, v in feeds.items() if n in ask}
        fed |= {p.name + FORCED: p.widened(values[p.name]) for p in forcing}
        alone = (
            dict(zip(made, call(open_[2], made, fed, "the second model"), strict=True)) if open_[2] else {}
        )
        for p in chunk:
            x = values[p.name]
            sums[p.name].add(
                p.divided(x),
                *(p.cropped(y[p.result]) if p.result in y else p.divided(x) for y in (ran, alone)),
            )
        progress(count / (count + 1))
    progress(1.0)


def _part(proto: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the graph with these outputs alone, without the inputs and nodes that they do not need."""
    made = {n for node in proto.graph.node for n in node.output}
    wanted = {n for n in names if n in made}
    kept = []
    for node in reversed(proto.graph.node):
        if wanted.intersection(node.output):
            wanted |= reads(node)
            kept.append(node)
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.graph.name = "layers"
    part.graph.node.extend(reversed(kept))
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in wanted)
    part.graph.input.extend(v for v in proto.graph.input if v.name in wanted)
    part.graph.output.extend(onnx.ValueInfoProto(name=n) for n in dict.fromkeys(names) if n in made)
    return part
