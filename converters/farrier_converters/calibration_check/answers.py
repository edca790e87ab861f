"""What a network's answers say of the rows: swapped channels, one class only, noise."""

from __future__ import annotations

import numpy as np

from ..data import Dataset
from .faults import ONE_CLASS, CheckSettings, Fault
from .network import Reaction


def swapped(now: Reaction, then: Reaction, settings: CheckSettings) -> float:
    """Return a small gain where the network is surer, row by row, with the channels swapped, or fits them better."""
    closer = 1.0
    if now.misfit is not None and then.misfit is not None:
        closer = then.misfit / max(now.misfit, 1e-12)
    if now.confidence is None or then.confidence is None:
        return 0.01 if closer < settings.closer else 0.0
    surer = then.confidence - now.confidence
    errors = float(surer.mean()) / max(float(surer.std()) / max(len(surer), 1) ** 0.5, 1e-12)
    weight = errors / settings.surer + (1 - closer) / settings.unlikely
    return 0.01 if errors > 0 and closer <= 1 and weight > 1 else 0.0


def one_class(
    now: Reaction, reference: Reaction | None, data: Dataset, settings: CheckSettings
) -> list[Fault]:
    """Return the fault of rows that are nearly all of one class, by their labels or else by the network's answers."""
    classes = now.classes
    if data.labels is not None and np.issubdtype(data.labels.dtype, np.integer):
        classes = data.labels[data.rows].reshape(-1)
    if classes is None or len(classes) < 8:
        return []
    counts = np.bincount(classes - classes.min())
    top = float(counts.max() / len(classes))
    least = settings.one_class
    if classes is now.classes and _second_in_others(now, int(counts.argmax() + classes.min()), settings):
        least = settings.most_kinds
    if top < least or (reference is not None and _top(reference) >= min(least, 0.8 * top)):
        return []
    return [
        Fault(
            ONE_CLASS,
            f"{top:.0%} of the calibration rows are of one class: give rows of every class that the model will meet",
            {"share": top},
        )
    ]


def _second_in_others(now: Reaction, kind: int, settings: CheckSettings) -> bool:
    """Whether one class also comes second so often that the rows taken for others may be of it.

    A network that errs often takes the rows of one class for several.
    """
    if now.classes is None or now.seconds is None or now.kinds < settings.many_kinds:
        return False
    others = now.seconds[now.classes != kind]
    return len(others) >= settings.fewest // 2 and bool((others == kind).mean() >= settings.most_kinds)


def like_noise(now: Reaction, shuffled: Reaction, settings: CheckSettings) -> bool:
    """Whether answers tell as little when each row's values are shuffled, by a network that minds where they stand."""
    if now.information is None or shuffled.information is None or now.classes is None:
        return False
    if len(now.classes) < 2 * settings.fewest or bool(
        (now.classes == shuffled.classes).mean() > settings.alike
    ):
        return False
    return abs(now.information - shuffled.information) < settings.shuffled


def _top(reaction: Reaction) -> float:
    if reaction.classes is None:
        return 0.0
    return float(np.bincount(reaction.classes).max() / len(reaction.classes))
