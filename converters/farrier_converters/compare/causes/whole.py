"""Causes that no single layer has: ranges that all come from the wrong data, or from too little."""

from __future__ import annotations

from collections.abc import Sequence

from .activations import BAD_RATIO, has_outlier_channel
from .model import PREPROCESSING, THIN_CALIBRATION, ActivationFacts, Cure, Finding

MANY = 0.3  # of the ranges do not fit
FEWEST = 3
EXCEEDED = 2.5  # times the least error, through clipping: what a range of a few samples does
HALF = 0.5  # where there are few ranges
SHORT = 0.94  # of the best range: what a few rows give,
MOST = 0.6  # in so many of the ranges
ALONE = 50.0  # a range this many times worse than the next is a fault of its own
INPUT_CLIPPED = 0.15  # of the input's values: a few rows already show more than the rest
INPUT_ROOM = 0.2  # of its range, on one side, that the input never uses: no row of its kind made that


def whole_cause(facts: Sequence[ActivationFacts]) -> Finding | None:
    """Return the cause that most ranges share, or None.

    Where the input's own range does not fit either, what calibrated was prepared otherwise than the data; where it
    does, the calibration data did not show what the network meets.
    """
    facts = [f for f in facts if not has_outlier_channel(f)]
    inner = [f for f in facts if not f.is_input]
    clipped = {id(f) for f in facts if f.cost.clipping > f.cost.rounding}
    misfit = [f for f in inner if f.ratio >= EXCEEDED and (id(f) in clipped or f.ratio >= BAD_RATIO)]
    if len(misfit) < max(FEWEST, MANY * len(inner)) and not (misfit and _most_fall_short(inner)):
        misfit = [f for f in facts if f.ratio >= EXCEEDED and (id(f) in clipped or f.ratio >= BAD_RATIO)]
        if len(misfit) < max(2, HALF * len(facts)) or len(facts) < FEWEST or _alone(misfit):
            return None
    source = next((f for f in facts if f.is_input and _input_differs(f)), None)
    worst = max(misfit, key=lambda f: f.place.share * f.explained)
    weight = min(
        1.0, sum(f.place.share * f.explained for f in {id(f): f for f in (*misfit, *facts)}.values())
    )
    numbers = {
        "ranges": len(facts),
        "misfit": len(misfit),
        "clipped_share": max(f.cost.below + f.cost.above for f in misfit),
    }
    methods = {f.place.tensor: "mse" for f in misfit}
    if source is not None:
        low, high, data = *source.extent, source.data
        return Finding(
            PREPROCESSING,
            source.place,
            weight,
            f"the range of the input {source.place.tensor!r} is {low:.4g} to {high:.4g}, and these rows reach from "
            f"{data[0]:.4g} to {data[1]:.4g}: calibration rows were prepared otherwise",
            Cure(
                "prepare calibration rows as the model's inputs are (mean, scale, channel order), and calibrate again"
            ),
            {**numbers, "low": low, "high": high, "data_low": data[0], "data_high": data[1]},
        )
    return Finding(
        THIN_CALIBRATION,
        worst.place,
        weight,
        f"{len(misfit)} of {len(facts)} ranges do not fit this data, {worst.place.tensor} worst: they come from too "
        "few rows, or from rows unlike these",
        Cure("calibrate with more rows, of every kind that the model will meet", methods),
        numbers,
    )


def _most_fall_short(inner: Sequence[ActivationFacts]) -> bool:
    short = [f for f in inner if f.extent[1] - f.extent[0] < SHORT * (f.best[1] - f.best[0])]
    return len(inner) >= FEWEST and len(short) >= MOST * len(inner)


def _alone(misfit: Sequence[ActivationFacts]) -> bool:
    ratios = sorted(f.ratio for f in misfit)
    return ratios[-1] > ALONE * ratios[-2]


def _input_differs(f: ActivationFacts) -> bool:
    (low, high), (data_low, data_high) = f.extent, (min(f.data[0], 0.0), max(f.data[1], 0.0))
    room = max(data_low - low, high - data_high) / max(high - low, 1e-300)
    return f.cost.below + f.cost.above > INPUT_CLIPPED or room > INPUT_ROOM
