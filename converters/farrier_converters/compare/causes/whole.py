"""Causes that no single layer has: ranges that all come from the wrong data, or from too little."""

from __future__ import annotations

from collections.abc import Sequence

from .activations import BAD_RATIO
from .model import PREPROCESSING, THIN_CALIBRATION, ActivationFacts, Cure, Finding

MANY = 0.3  # of the ranges do not fit
FEWEST = 3
EXCEEDED = 2.5  # times the least error, through clipping: what a range of a few samples does
INPUT_SPAN = 1.35  # the input's range and the data's differ by this factor, or
INPUT_SHIFT = 0.1  # by this share of the span


def whole_cause(facts: Sequence[ActivationFacts]) -> Finding | None:
    """Return the cause that most ranges share, or None.

    Where the input's own range does not fit either, what calibrated was prepared otherwise than the data; where it
    does, the calibration data did not show what the network meets.
    """
    inner = [f for f in facts if not f.is_input]
    misfit = [
        f
        for f in inner
        if f.ratio >= EXCEEDED and (f.cost.clipping > f.cost.rounding or f.ratio >= BAD_RATIO)
    ]
    if len(inner) < 2 or len(misfit) < max(FEWEST, MANY * len(inner)):
        return None
    source = next((f for f in facts if f.is_input and _input_differs(f)), None)
    worst = max(misfit, key=lambda f: f.place.share * f.explained)
    weight = min(
        1.0, sum(f.place.share * f.explained for f in {id(f): f for f in (*misfit, *facts)}.values())
    )
    numbers = {
        "ranges": len(inner),
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
            f"the input {source.place.tensor} was calibrated for {low:.4g} to {high:.4g} and gets {data[0]:.4g} to "
            f"{data[1]:.4g}: calibration rows were prepared otherwise than these",
            Cure(
                "prepare calibration rows as the model's inputs are (mean, scale, channel order), and calibrate again"
            ),
            {**numbers, "low": low, "high": high, "data_low": data[0], "data_high": data[1]},
        )
    return Finding(
        THIN_CALIBRATION,
        worst.place,
        weight,
        f"{len(misfit)} of {len(inner)} ranges do not fit this data, {worst.place.tensor} worst: they come from too "
        "few rows, or from rows unlike these",
        Cure("calibrate with more rows, of every kind that the model will meet", methods),
        numbers,
    )


def _input_differs(f: ActivationFacts) -> bool:
    (low, high), (data_low, data_high) = f.extent, (min(f.data[0], 0.0), max(f.data[1], 0.0))
    span, data_span = max(high - low, 1e-300), max(data_high - data_low, 1e-300)
    if max(span / data_span, data_span / span) > INPUT_SPAN:
        return True
    return max(abs(low - data_low), abs(high - data_high)) > INPUT_SHIFT * max(span, data_span)
