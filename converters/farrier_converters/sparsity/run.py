"""Make a model sparse in one shot, from its weights and calibration data: numpy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from farrier_contracts.errors import UsageError

from ..graph.write_back import write_back
from ..model import Model
from . import allocate, importance, inputs
from .allocate import ERK, LAYER, Masks, erk
from .goal import Goal
from .layers import Layer
from .sparsegpt import SparseGptSettings, sparsegpt

Progress = Callable[[str, float], None]
MOMENT_BYTES = 1 << 28  # of second moments held at once


@dataclass(frozen=True)
class Made:
    """A sparse model, and notes on layers that were treated in another way than was asked for."""

    model: Model
    notes: dict[str, str] = field(default_factory=dict)


def one_shot(
    model: Model,
    layers: Mapping[str, Layer],
    goal: Goal,
    method: str,
    *,
    batches: inputs.Batches | None = None,
    settings: SparseGptSettings = SparseGptSettings(),
    progress: Progress = lambda _stage, _share: None,
) -> Made:
    """Return the model with zeros where `method` ("magnitude", "wanda" or "sparsegpt") says.

    Raises UsageError for a method that needs data and has none, InputError for data that does not fit.
    """
    if method in importance.CALIBRATED and batches is None:
        raise UsageError(
            f"the importance {method!r} needs calibration data; give some with --data or --calib, "
            "or choose 'magnitude', which needs none"
        )
    if method == importance.SPARSEGPT:
        assert batches is not None
        return _reconstructed(model, layers, goal, batches, settings, progress)
    notes: dict[str, str] = {}
    if method == importance.WANDA:
        assert batches is not None
        scores, notes = importance.wanda(model, layers, batches, lambda share: progress("observe", share))
    else:
        scores = importance.magnitude(layers)
    return Made(masked(model, layers, goal.masks(layers, scores)), notes)


def masked(model: Model, layers: Mapping[str, Layer], masks: Masks) -> Model:
    """Return the model with zeros where the masks [outputs, inputs, kernel] are False."""
    changed = {
        name: np.where(layers[name].view.stored(mask), layers[name].value, 0).astype(layers[name].value.dtype)
        for name, mask in masks.items()
    }
    return write_back(model, changed)


def _reconstructed(
    model: Model,
    layers: Mapping[str, Layer],
    goal: Goal,
    batches: inputs.Batches,
    settings: SparseGptSettings,
    progress: Progress,
) -> Made:
    """Layers that read the same tensor are done together; each sees what the sparse layers before it make."""
    views = {name: layer.view for name, layer in layers.items()}
    ratios = erk(views, goal.ratio) if goal.scope == ERK else dict.fromkeys(layers, goal.ratio)
    stages: dict[str, list[Layer]] = {}
    for layer in layers.values():
        if inputs.observable(layer):
            stages.setdefault(inputs.source(layer), []).append(layer)
    notes = {name: importance.UNSEEN for name, layer in layers.items() if not inputs.observable(layer)}
    rest = {name: layers[name] for name in notes}
    scores = importance.magnitude(rest)
    plain = {n: Goal(goal.pattern, ratios[n], LAYER).masks({n: rest[n]}, {n: scores[n]})[n] for n in rest}
    found = masked(model, rest, plain)
    for number, stage in enumerate(
        _chunks(list(stages.values()), 0 if settings.sequential else MOMENT_BYTES)
    ):
        progress("reconstruct", number / len(stages))
        moments = inputs.second_moments(found, stage, batches, lambda _share: None)
        changed = {
            layer.weight: _layer(layer, moments[layer], goal, ratios[layer.weight], settings)
            for layer in stage
        }
        found = write_back(found, changed)
    progress("reconstruct", 1.0)
    return Made(found, notes)


def _layer(
    layer: Layer, moments: np.ndarray, goal: Goal, ratio: float, settings: SparseGptSettings
) -> np.ndarray:
    view, parts = layer.view, np.split(layer.cube(), layer.view.groups)
    made = []
    for part, moment in zip(parts, moments, strict=True):
        found = sparsegpt(part, moment, goal.pattern, ratio, settings)
        if found is None:  # inputs that are always zero tell nothing
            masks = allocate.masks({"": np.abs(part)}, {}, goal.pattern, ratio, LAYER)
            found = np.where(masks[""], part, np.float32(0))
        made.append(found)
    return view.stored(np.concatenate(made)).astype(layer.value.dtype)


def _chunks(stages: list[list[Layer]], limit: int) -> Iterator[list[Layer]]:
    """Yield whole stages in the order of the graph, as many at once as their moments have room for."""
    chunk: list[Layer] = []
    held = 0
    for stage in stages:
        size = sum(8 * s.view.groups * (s.view.inputs * s.view.kernel) ** 2 for s in stage)
        if chunk and held + size > limit:
            yield chunk
            chunk, held = [], 0
        chunk.extend(stage)
        held += size
    if chunk:
        yield chunk
