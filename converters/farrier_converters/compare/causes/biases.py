"""Causes in the bias of one layer."""

from __future__ import annotations

import numpy as np

from .model import BIAS_DAMAGED, BIAS_OVERFLOW, BiasFacts, Cure, Finding

WRONG = 0.05  # of the size of the layer's results, or of the bias where that is larger
HELPFUL = (
    0.25  # of the differences: where results drift by less, they take back an error that was made before
)
WRONG_SCALE = 0.01  # between the bias's scale and that of its accumulator


def bias_cause(f: BiasFacts) -> Finding | None:
    """Return what is wrong with a stored bias, or None."""
    cure = Cure(
        "quantize again: the bias belongs into the scale of its accumulator, input scale times weight scale"
    )
    if f.at_limit:
        return Finding(
            BIAS_OVERFLOW,
            f.place,
            f.place.share * f.part,
            f"{f.at_limit} values of the bias {f.name} do not fit their integers in a scale of {f.scale.min():.3g}",
            cure,
            {"at_limit": f.at_limit, "scale": float(f.scale.min())},
        )
    ratio = 1.0
    if f.expected_scale is not None and f.expected_scale.size in (1, f.scale.size):
        ratios = f.scale / np.maximum(f.expected_scale, 1e-300)
        ratio = float(ratios[int(np.abs(np.log(np.maximum(ratios, 1e-300))).argmax())])
    wrong, channel = _damage(f)
    if wrong <= WRONG and abs(ratio - 1) <= WRONG_SCALE:
        return None
    return Finding(
        BIAS_DAMAGED,
        f.place,
        f.place.share * f.part,
        f"the bias {f.name} is wrong by {wrong:.1%} of the layer's size (channel {channel}), its scale {ratio:.4g} "
        "times that of its accumulator",
        cure,
        {"error": wrong, "channel": channel, "scale_ratio": ratio},
    )


def _damage(f: BiasFacts) -> tuple[float, int]:
    """Return the largest difference from the float bias as a share of the layer's size, and its channel.

    None counts where the layer's results, as B runs, drift by far less than the biases differ: they are corrected.
    """
    if f.wanted is None or f.wanted.shape != f.stored.shape or not f.stored.size:
        return 0.0, 0
    difference = np.abs(f.stored.astype(np.float64) - f.wanted)
    shares = difference / max(float(np.abs(f.wanted).max()), f.spread, 1e-300)
    if f.drift is not None:  # B may have more channels than A
        far = np.flatnonzero(shares[: f.drift.size] > WRONG)
        if far.size and np.linalg.norm(f.drift[far]) < HELPFUL * np.linalg.norm(difference[far]):
            return 0.0, 0
    channel = int(shares.argmax())
    return float(shares[channel]), channel
