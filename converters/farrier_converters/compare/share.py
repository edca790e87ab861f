"""Which layer makes the final loss: each layer's own error, added alone to the float model, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..graph import run
from .forced import FORCED, NOISE, forced, noisy, with_outputs
from .probe import Probed, call, open_session


@dataclass(frozen=True)
class ShareSettings:
    """What bounds the runs: one of the float model per layer, over a few rows."""

    layers: int = 64  # at most, those with the most own error; the rest counts as nothing
    rows: int = 16  # at most, in one run
    threads: int = run.THREADS


def shares(
    probed: Probed,
    feeds: dict[str, np.ndarray],
    *,
    settings: ShareSettings = ShareSettings(),
    progress: Callable[[float], None] = lambda share: None,
) -> dict[str, float]:
    """Return, by pair, its share (0..1) of the error at the outputs; empty where nothing of it can be seen.

    A layer's own error on these rows is added to the tensor in A, nothing else, and the squared change of the float
    outputs counted (each output relative to its own size). Errors of different layers are taken as independent, as
    rounding errors nearly are: the shares are of the sum over the layers.
    """
    own = _own_errors(probed, feeds, settings)
    if not own:
        return {}
    names = sorted(own, key=lambda n: (-_relative(own[n][0], own[n][1]), n))[: settings.layers]
    pairs = [p for p in probed.pairs if p.name in own]
    outputs = [spec.name for spec in probed.a.outputs]
    session = open_session(
        noisy(probed.a, pairs, probed.dtypes), "the first model", threads=settings.threads, optimize=True
    )
    quiet = {p.name + NOISE: np.zeros((), probed.dtypes[p.name]) for p in pairs}
    calm = call(session, outputs, {**feeds, **quiet}, "the first model")
    change = {}
    for count, name in enumerate(names, start=1):
        noise = {name + NOISE: own[name][1].astype(probed.dtypes[name])}
        moved = call(session, outputs, {**feeds, **quiet, **noise}, "the first model")
        change[name] = sum(_change(x, y) for x, y in zip(calm, moved, strict=True))
        progress(count / len(names))
    total = sum(change.values())
    return {name: value / total for name, value in change.items()} if total > 0 else {}


def _own_errors(
    probed: Probed, feeds: dict[str, np.ndarray], settings: ShareSettings
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return (value, own error) of each layer that has one, for these rows."""
    inputs = {spec.name for spec in probed.a.inputs}
    inner = [p.name for p in probed.pairs if p.name not in inputs]
    made = [p for p in probed.pairs if p.result not in inputs]
    if not made:
        return {}
    one = open_session(with_outputs(probed.a.proto, inner), "the first model", threads=settings.threads)
    values = dict(zip(inner, call(one, inner, feeds, "the first model"), strict=True)) if inner else {}
    values |= {n: v for n, v in feeds.items() if n in inputs}
    proto = forced(probed.b, probed.pairs, probed.quantizers, probed.dtypes)
    ask = {value.name for value in proto.graph.input}
    two = open_session(proto, "the second model layer by layer", threads=settings.threads)
    fed = {n: v for n, v in feeds.items() if n in ask}
    fed |= {p.name + FORCED: p.widened(values[p.name]) for p in probed.pairs if p.name + FORCED in ask}
    alone = call(two, [p.result for p in made], fed, "the second model")
    errors = {
        p.name: (values[p.name], p.narrowed(y) - values[p.name]) for p, y in zip(made, alone, strict=True)
    }
    return {name: pair for name, pair in errors.items() if np.any(pair[1]) and np.isfinite(pair[1]).all()}


def _relative(value: np.ndarray, error: np.ndarray) -> float:
    return float(
        np.square(error, dtype=np.float64).sum() / max(np.square(value, dtype=np.float64).sum(), 1e-30)
    )


def _change(before: np.ndarray, after: np.ndarray) -> float:
    if not isinstance(before, np.ndarray) or before.dtype.kind != "f" or before.shape != after.shape:
        return 0.0
    return _relative(before, after.astype(np.float64) - before)
