"""Of several quantized forms of one model, the one whose outputs are nearest to the float model's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..graph import run
from ..model import Model


@dataclass(frozen=True)
class NearestSettings:
    """How much is looked at, and how much better another form has to be than the first one.

    `values` bounds the rows by what they cost: elements of all inputs together.
    """

    rows: int = 64
    values: int = 1 << 22
    margin: float = 0.03  # of the first one's error: nearer than that is no reason to leave it
    threads: int = run.THREADS


def nearest(
    reference: Model,
    forms: Mapping[str, Model],
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    settings: NearestSettings = NearestSettings(),
) -> str:
    """Return the name of the form with the least error (see `distances`).

    The first form wins unless another is nearer by the margin, and where they cannot be run.
    """
    errors = distances(reference, forms, batches, settings)
    first = next(iter(forms))
    best = min(errors, key=lambda name: errors[name], default=first)
    return best if errors and errors[best] < errors[first] * (1 - settings.margin) else first


def distances(
    reference: Model,
    forms: Mapping[str, Model],
    batches: Callable[[], Iterator[dict[str, np.ndarray]]],
    settings: NearestSettings = NearestSettings(),
) -> dict[str, float]:
    """Return each form's error: squared error over variance, averaged over float outputs; none where none runs."""
    sums: dict[str, dict[int, float]] = {name: {} for name in forms}
    moments: dict[int, np.ndarray] = {}
    try:
        sessions = {n: run.session(m.proto, threads=settings.threads) for n, m in forms.items()}
        original = run.session(reference.proto, threads=settings.threads)
        for feeds in limited(batches(), settings):
            wanted = _floats([np.asarray(value) for value in original.run(None, feeds)])
            for index, values in wanted.items():
                moments[index] = moments.get(index, 0.0) + _moments(values)
            for name, session in sessions.items():
                for index, values in _floats([np.asarray(v) for v in session.run(None, feeds)]).items():
                    error = float(np.square(values - wanted[index]).sum())
                    sums[name][index] = sums[name].get(index, 0.0) + error
    except run.runtime_errors():
        return {}  # whoever runs it next says what is wrong
    return {name: _relative(found, moments) for name, found in sums.items()}


def limited(
    batches: Iterator[dict[str, np.ndarray]], settings: NearestSettings
) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches until the rows or their values are many enough; one at least."""
    rows = values = 0
    for feeds in batches:
        yield feeds
        rows += max((len(a) for a in feeds.values() if a.ndim), default=1)
        values += sum(a.size for a in feeds.values())
        if rows >= settings.rows or values >= settings.values:
            return


def _floats(outputs: Sequence[np.ndarray]) -> dict[int, np.ndarray]:
    arrays = enumerate(map(np.asarray, outputs))
    return {i: a.astype(np.float64) for i, a in arrays if np.issubdtype(a.dtype, np.floating)}


def _moments(values: np.ndarray) -> np.ndarray:
    """Return count, sum and sum of squares."""
    return np.array([values.size, values.sum(), np.square(values).sum()])


def _relative(errors: Mapping[int, float], moments: Mapping[int, np.ndarray]) -> float:
    """Return the mean over outputs of squared error over squared deviation; 0 where there is no float output."""
    shares = []
    for index, (count, total, squares) in moments.items():
        deviation = float(squares - total * total / max(count, 1.0))
        shares.append(errors.get(index, 0.0) / max(deviation, 1e-30))
    return float(np.mean(shares)) if shares else 0.0
