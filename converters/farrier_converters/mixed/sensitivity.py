"""What each layer costs in each precision: noise at the outputs, bytes, milliseconds. Measured once per model.

A layer's loss is the noise that it alone causes at the model's outputs: the squared error over the squared float
output, both summed over some rows. Noise of independent roundings adds up, and so do the losses of layers, roughly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from farrier_contracts.errors import InputError

from ..graph import run
from ..graph.compact.shrink import shrink
from ..model import Model
from ..passes import Context
from . import profile
from .solve import Cost
from .ways import FLOAT, Way, apply, layers, named

Feeds = dict[str, np.ndarray]
SMALLEST_SIGNAL = 1e-30


@dataclass(frozen=True)
class Sensitivity:
    """Costs of every layer in every way that it can go; float has loss 0. `base_bytes` is the rest of the file."""

    layers: tuple[str, ...]
    ways: tuple[Way, ...]
    costs: dict[str, dict[str, Cost]]
    base_bytes: float


def measure(
    model: Model,
    ways: Sequence[Way],
    context: Context,
    *,
    rows: Sequence[Feeds],
    threads: int = 1,
    progress: Callable[[float], None] = lambda share: None,
) -> Sensitivity:
    """Measure a fused float model, one layer and one way at a time, on `rows` (inputs of one run each).

    A layer that a way leaves in float does not have that way. Raises InputError where the model does not run.
    """
    model = named(model)
    names = layers(model)
    known = profile.aliases(model, names)
    wanted = _outputs(model, rows, threads)
    times = profile.layer_ms(model, known, rows[0], threads=threads)
    weights = {name: profile.weight_bytes(model, name) for name in names}
    costs = {name: {FLOAT: Cost(0.0, weights[name], times[name])} for name in names}
    size = _bytes(model)
    for done, way in enumerate(ways):
        whole = apply(model, dict.fromkeys(names, way.name), ways, names, context)
        times = profile.layer_ms(whole, known, rows[0], threads=threads)
        saved: dict[str, float] = {}
        for index, name in enumerate(names):
            changed = apply(model, {name: way.name}, ways, names, context)
            progress((done + (index + 1) / len(names)) / len(ways))
            if not _same_operators(changed, model):
                saved[name] = size - _bytes(changed)
                loss = _noise(_outputs(changed, rows, threads), wanted)
                costs[name][way.name] = Cost(loss, 0.0, times[name])
        # what stands between two layers of one kind is paid once, so that all together save more than each alone
        together = size - _bytes(whole)
        scale = together / sum(saved.values()) if together > 0 and sum(saved.values()) > 0 else 1.0
        for name, bytes_saved in saved.items():
            cost = costs[name][way.name]
            costs[name][way.name] = replace(cost, bytes=weights[name] - bytes_saved * scale)
    return Sensitivity(names, tuple(ways), costs, size - sum(weights.values()))


def _bytes(model: Model) -> int:
    return shrink(model).proto.ByteSize()


def _same_operators(one: Model, other: Model) -> bool:
    return [n.op_type for n in one.proto.graph.node] == [n.op_type for n in other.proto.graph.node]


def _outputs(model: Model, rows: Sequence[Feeds], threads: int) -> list[list[np.ndarray]]:
    try:
        session = run.session(model.proto, threads=threads)
        return [[np.asarray(value) for value in session.run(None, feeds)] for feeds in rows]
    except run.runtime_errors() as error:
        raise InputError(f"the model does not run: {run.brief(error)}") from None


def _noise(found: list[list[np.ndarray]], wanted: list[list[np.ndarray]]) -> float:
    """Return the mean over outputs of squared error over squared signal."""
    count = len(wanted[0])
    error, signal = np.zeros(count), np.zeros(count)
    for ours, theirs in zip(found, wanted, strict=True):
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if np.issubdtype(b.dtype, np.floating) and a.shape == b.shape:
                error[index] += np.square(a.astype(np.float64) - b).sum()
                signal[index] += np.square(b.astype(np.float64)).sum()
    known = signal > SMALLEST_SIGNAL
    return float((error[known] / signal[known]).mean()) if known.any() else 0.0
