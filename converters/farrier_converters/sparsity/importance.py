"""Which weights matter, without gradients: by size, or by size and what they are multiplied with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..model import Model
from . import inputs
from .allocate import ERK, GLOBAL, LAMP, LAYER, OUTPUT
from .layers import Layer

MAGNITUDE, WANDA, SPARSEGPT, SNIP, MOVEMENT = "magnitude", "wanda", "sparsegpt", "snip", "movement"
IMPORTANCES = (MAGNITUDE, WANDA, SPARSEGPT, SNIP, MOVEMENT)
CALIBRATED = (WANDA, SPARSEGPT)  # which need calibration data
TRAINED = (SNIP, MOVEMENT)  # which need gradients, and so labels
# What may compete under each importance; the first is the default.
SCOPES: dict[str, tuple[str, ...]] = {
    MAGNITUDE: (GLOBAL, LAYER, OUTPUT, ERK, LAMP),
    WANDA: (OUTPUT, LAYER, ERK),
    SPARSEGPT: (LAYER, ERK),
    SNIP: (GLOBAL, LAYER, OUTPUT, ERK, LAMP),
    MOVEMENT: (LAYER, GLOBAL, OUTPUT, ERK),  # scores have a sign, which levelling by squares would lose
}
UNSEEN = "by magnitude: its inputs cannot be observed"


def magnitude(layers: Mapping[str, Layer]) -> dict[str, np.ndarray]:
    """Return |w| [outputs, inputs, kernel] of each layer."""
    return {name: np.abs(layer.cube()) for name, layer in layers.items()}


def wanda(
    model: Model,
    layers: Mapping[str, Layer],
    batches: inputs.Batches,
    heard: Callable[[float], None] = lambda _share: None,
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return |w| times the norm of the input that it multiplies, and notes on layers that had to do without.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695.
    Raises InputError for calibration data that does not fit.
    """
    seen = [layer for layer in layers.values() if inputs.observable(layer)]
    norms = inputs.norms(model, seen, batches, heard)
    scores = magnitude(layers)
    for layer, norm in norms.items():
        values = scores[layer.weight]
        apart = values.reshape(layer.view.groups, -1, norm.shape[1]) * norm[:, None]
        scores[layer.weight] = apart.reshape(values.shape).astype(np.float32)
    return scores, {name: UNSEEN for name, layer in layers.items() if layer not in norms}
