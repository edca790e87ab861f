"""Causes in the weights of one layer."""

from __future__ import annotations

import numpy as np

from .model import (
    DAMAGED_SCALE,
    DAMAGED_ZERO_POINT,
    WEIGHT_OUTLIER,
    WEIGHT_SATURATION,
    Cure,
    Finding,
    WeightFacts,
)

WRONG_SLOPE = 0.08  # stored weights that are so much larger or smaller than the float ones, as a share
RESOLVED = 4  # steps that a channel must reach for its slope to mean anything
OFFSET_STEPS = 0.75  # a mean difference of so many steps is no rounding
FOLLOWS = 0.7  # of the error that slope or offset must explain
CLIPPED = 0.02  # share of a channel's values at the limit
BAD_RATIO = 10.0  # error over that with a scale per channel
TOO_FEW_STEPS = 16.0  # of about 127: what half of the channels must make do with


def weight_cause(f: WeightFacts) -> Finding | None:
    """Return what is wrong with the weights of one layer, or None."""
    return _damaged(f) or _outlier(f)


def _damaged(f: WeightFacts) -> Finding | None:
    resolved = f.steps >= RESOLVED
    by_slope = (f.slope - 1) ** 2 * f.signal
    by_offset = f.offset**2 * f.size
    clipped = resolved & (f.clipped > CLIPPED) & (f.slope < 1 - WRONG_SLOPE / 4)
    if clipped.any():
        channel = int(np.where(clipped, f.error, 0).argmax())
        return _again(
            WEIGHT_SATURATION,
            f,
            f"{f.clipped[channel]:.1%} of the weights {f.name} in channel {channel} sit at the largest integer: the "
            "scale is too small",
            {
                "channel": channel,
                "clipped_share": float(f.clipped[channel]),
                "slope": float(f.slope[channel]),
            },
        )
    off = np.abs(f.offset) / np.maximum(f.step, 1e-300)
    shifted = resolved & (off > OFFSET_STEPS) & (by_offset > FOLLOWS * (f.error - by_slope))
    if shifted.any() and by_offset[shifted].sum() > by_slope[resolved].sum():
        channel = int(np.where(shifted, off, 0).argmax())
        return _again(
            DAMAGED_ZERO_POINT,
            f,
            f"the weights {f.name} are shifted by {off[channel]:.3g} steps in channel {channel}: a zero point is wrong",
            {"channel": channel, "steps": float(off[channel]), "channels": int(shifted.sum())},
        )
    wrong = resolved & (np.abs(f.slope - 1) > WRONG_SLOPE) & (by_slope > FOLLOWS * f.error)
    if not wrong.any():
        return None
    channel = int(np.where(wrong, by_slope, 0).argmax())
    return _again(
        DAMAGED_SCALE,
        f,
        f"the weights {f.name} stand for {f.slope[channel]:.3g} times the float ones in {int(wrong.sum())} of "
        f"{len(wrong)} channels: a scale is wrong",
        {"channel": channel, "slope": float(f.slope[channel]), "channels": int(wrong.sum())},
    )


def _again(cause: str, f: WeightFacts, why: str, numbers: dict[str, float]) -> Finding:
    cure = Cure("quantize the weights again from the float model")
    return Finding(cause, f.place, f.place.share * f.part, why, cure, numbers)


def _outlier(f: WeightFacts) -> Finding | None:
    ratio = float(f.error.sum() / max(f.ideal.sum(), 1e-300))
    steps = float(np.median(f.steps))
    if f.per_channel or len(f.bound) < 2 or (ratio < BAD_RATIO and steps > TOO_FEW_STEPS):
        return None
    channel = int(f.bound.argmax())
    middle = float(np.median(f.bound))
    if f.bound[channel] < 2 * middle:
        return None
    return Finding(
        WEIGHT_OUTLIER,
        f.place,
        f.place.share * f.part * (1 - 1 / max(ratio, 1.0)),
        f"channel {channel} of the weights {f.name} is {f.bound[channel] / max(middle, 1e-300):.3g} times as large as "
        f"the middle one and takes the one scale: half of the channels have at most {steps:.0f} steps",
        Cure(
            "give each channel its own scale; where the target cannot, equalise",
            per_channel=True,
            equalize=True,
        ),
        {
            "channel": channel,
            "times": float(f.bound[channel] / max(middle, 1e-300)),
            "median_steps": steps,
            "error_ratio": ratio,
        },
    )
