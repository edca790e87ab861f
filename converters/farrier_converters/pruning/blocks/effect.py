"""How far a model's outputs move when something is taken out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from farrier_contracts.errors import InputError

from ...graph import run
from ...model import Model

SMALLEST = 1e-12  # of a mean square that is divided by

Answers = list[list[np.ndarray]]  # for each batch, all outputs


def answers(model: Model, rows: Sequence[Mapping[str, np.ndarray]]) -> Answers:
    """Return the outputs for each batch. Raises InputError where ONNX Runtime refuses the model or the rows."""
    try:
        opened = run.session(model.proto)
        return [[np.asarray(a) for a in opened.run(None, dict(feeds))] for feeds in rows]  # type: ignore[arg-type]
    except run.runtime_errors() as error:
        raise InputError(f"ONNX Runtime cannot run the model: {run.brief(error)}") from None


def change(wanted: Answers, found: Answers) -> float:
    """Return the mean square of the change over the variance, as the mean over outputs; infinite for other shapes."""
    shares = []
    for position in range(len(wanted[0])):
        pairs = [(w[position].astype(np.float64), f[position]) for w, f in zip(wanted, found, strict=True)]
        if any(w.shape != f.shape for w, f in pairs):
            return math.inf
        moved = sum(float(np.square(w - f).sum()) for w, f in pairs)
        whole = sum(float(np.square(w - w.mean()).sum()) for w, _ in pairs)
        shares.append(moved / max(whole, SMALLEST))
    return float(np.mean(shares)) if shares else 0.0
