"""Causes in the bias of one layer."""

from __future__ import annotations

import numpy as np

from .model import BIAS_DAMAGED, BIAS_OVERFLOW, BiasFacts, Cure, Finding

WRONG = 0.05  # of the size of the layer's results, or of the bias where that is larger
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
    wrong = 0.0
    if f.wanted is not None and f.wanted.shape == f.stored.shape:
        size = max(float(np.abs(f.wanted).max(initial=0.0)), f.spread, 1e-300)
        wrong = float(np.abs(f.stored - f.wanted).max(initial=0.0)) / size
    if wrong <= WRONG and abs(ratio - 1) <= WRONG_SCALE:
        return None
    channel = int(np.abs(f.stored - f.wanted).argmax()) if wrong and f.wanted is not None else 0
    return Finding(
        BIAS_DAMAGED,
        f.place,
        f.place.share * f.part,
        f"the bias {f.name} is wrong by {wrong:.1%} of the layer's size (channel {channel}), its scale {ratio:.4g} "
        "times that of its accumulator",
        cure,
        {"error": wrong, "channel": channel, "scale_ratio": ratio},
    )
