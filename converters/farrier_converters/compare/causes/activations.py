"""Causes in the range of one activation. All rest on one number: the error over the least that a range can make."""

from __future__ import annotations

import numpy as np

from .model import (
    ACTIVATION_OUTLIER,
    DAMAGED_SCALE,
    DAMAGED_ZERO_POINT,
    DEAD_RANGE,
    SATURATION,
    ActivationFacts,
    Cure,
    Finding,
)

BAD_RATIO = 5.0  # times the least error: 7 dB; a power-of-two scale alone costs up to 4
WIDE = 2.0  # a range of this many times the data's is too wide
SHIFTED = 0.2  # of the span: so much too long on one side, and too short on the other
LEAK_STEPS = 4.0  # below zero, where there should be none
OUTLIER_CHANNELS = 12.0  # largest over median bound of a channel
FEWEST_CHANNELS = 4


def activation_cause(f: ActivationFacts) -> Finding | None:
    """Return what is wrong with the range of one tensor, or None."""
    if abs(f.back_ratio - 1) > 1e-4 or f.back_shift:
        return _inconsistent(f)
    if f.clips and (leak := _leak(f)) is not None:
        return leak
    if has_outlier_channel(f) and f.cost.rounding + f.cost.clipping > 0:
        return _outlier_channel(f)
    if f.ratio >= BAD_RATIO:
        return _clipping(f) if f.cost.clipping > f.cost.rounding else _coarse(f)
    return None


def has_outlier_channel(f: ActivationFacts) -> bool:
    """Whether one channel is far larger than most, and the range is made for it: it goes well beyond the others."""
    alive = _alive(f)
    if len(alive) < FEWEST_CHANNELS:
        return False
    middle = float(np.median(alive))
    reach = max(-f.extent[0], f.extent[1])
    return float(alive.max()) >= OUTLIER_CHANNELS * middle and 2 * middle < reach < 2 * float(alive.max())


def _alive(f: ActivationFacts) -> np.ndarray:
    return np.zeros(0) if f.channel_bounds is None else f.channel_bounds[f.channel_bounds > 0]


def _span(extent: tuple[float, float]) -> float:
    return max(extent[1] - extent[0], 1e-300)


def _inconsistent(f: ActivationFacts) -> Finding:
    cause = DAMAGED_SCALE if abs(f.back_ratio - 1) > 1e-4 else DAMAGED_ZERO_POINT
    what = (
        f"scale is {f.back_ratio:.4g} times"
        if cause == DAMAGED_SCALE
        else f"zero point is {f.back_shift:+.0f} off"
    )
    return Finding(
        cause,
        f.place,
        f.place.share,
        f"{f.place.tensor} is dequantized otherwise than it is quantized: its {what} that of the way there",
        Cure("quantize again: scale and zero point of one tensor must be the same on both ways"),
        {"scale_ratio": f.back_ratio, "zero_point_shift": f.back_shift},
    )


def _leak(f: ActivationFacts) -> Finding | None:
    """A range that should clip as an activation function did, and lets more through."""
    step = _span(f.extent) / max(f.levels, 1)
    below, above = min(f.data[0], 0.0) - f.extent[0], f.extent[1] - max(f.data[1], 0.0)
    if below <= LEAK_STEPS * step or f.data[0] < 0 or above > _span(f.extent) / 2:
        return None
    return Finding(
        DAMAGED_ZERO_POINT,
        f.place,
        f.place.share,
        f"the range of {f.place.tensor}, {_range(f.extent)}, lets values below zero through, which its activation "
        "function cut off: its zero point is wrong",
        Cure("quantize again with ranges from this data", {f.place.tensor: "mse"}),
        {"low": f.extent[0], "high": f.extent[1], "data_low": f.data[0], "data_high": f.data[1]},
    )


def _clipping(f: ActivationFacts) -> Finding:
    numbers = {
        "clipped_share": f.cost.below + f.cost.above,
        "low": f.extent[0],
        "high": f.extent[1],
        "data_low": f.data[0],
        "data_high": f.data[1],
        "error_ratio": f.ratio,
    }
    (low, high), (best_low, best_high) = f.extent, f.best
    room = SHIFTED * _span(f.best)
    up, down = min(low - best_low, high - best_high), min(best_low - low, best_high - high)
    if max(up, down) > room:
        way = "up" if up > down else "down"
        return Finding(
            DAMAGED_ZERO_POINT,
            f.place,
            f.place.share * f.explained,
            f"the range of {f.place.tensor}, {_range(f.extent)}, is shifted {way}: the data wants {_range(f.best)}",
            Cure("quantize again with ranges from this data", {f.place.tensor: "mse"}),
            numbers,
        )
    return Finding(
        SATURATION,
        f.place,
        f.place.share * f.explained,
        f"{f.cost.below + f.cost.above:.2%} of the values of {f.place.tensor} lie outside of its range "
        f"{_range(f.extent)}; they reach {_range(f.data)}",
        Cure("calibrate with this data, and give the tensor a wider range", {f.place.tensor: "mse"}),
        numbers,
    )


def _coarse(f: ActivationFacts) -> Finding:
    data = (min(f.data[0], 0.0), max(f.data[1], 0.0))
    used = _span(data) / _span(f.extent)
    numbers = {
        "used_share": used,
        "low": f.extent[0],
        "high": f.extent[1],
        "data_low": f.data[0],
        "data_high": f.data[1],
        "bulk": f.bulk,
        "error_ratio": f.ratio,
    }
    if used * WIDE <= 1:
        return Finding(
            DEAD_RANGE,
            f.place,
            f.place.share * f.explained,
            f"{f.place.tensor} uses {used:.1%} of its range {_range(f.extent)}: the data stays in {_range(f.data)}",
            Cure("calibrate with this data, so that the range is tighter", {f.place.tensor: "mse"}),
            numbers,
        )
    return Finding(
        ACTIVATION_OUTLIER,
        f.place,
        f.place.share * f.explained,
        f"few values of {f.place.tensor} stretch its range to {_range(f.extent)}, while 99.9 % stay below "
        f"{f.bulk:.4g} in magnitude",
        Cure("take the range of least squared error, which cuts the outliers off", {f.place.tensor: "mse"}),
        numbers,
    )


def _outlier_channel(f: ActivationFacts) -> Finding:
    alive, bounds = _alive(f), f.channel_bounds
    assert bounds is not None
    largest, middle = float(alive.max()), float(np.median(alive))
    channel = int(bounds.argmax())
    part = float(np.clip(f.cost.total / max(f.own, 1e-300), 0, 1))
    return Finding(
        ACTIVATION_OUTLIER,
        f.place,
        min(f.place.share * part + f.behind, 1.0),
        f"channel {channel} of {f.place.tensor} reaches {largest:.4g}, half of the channels stay below {middle:.4g}, "
        "and all share one scale",
        Cure(
            "move the channel's size into the weights behind it (equalisation, SmoothQuant), or keep the layers that "
            "read it in float",
            equalize=True,
            exclude=tuple(n for n in (f.place.node, *f.readers) if n),
        ),
        {"channel": channel, "largest": largest, "median": middle, "times": largest / middle},
    )


def _range(extent: tuple[float, float]) -> str:
    return f"{extent[0]:.4g} to {extent[1]:.4g}"
