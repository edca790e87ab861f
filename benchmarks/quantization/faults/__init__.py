"""Faults to plant into quantized models: each one edits scales, zero points, weights or calibration rows, no more.

Nothing here knows how faults are found. A planter takes a float model, calibration rows, a random generator and returns
the float model to compare with, the faulty quantized one, and what was planted.
"""

from __future__ import annotations

from . import network, stored
from .planting import Planted, Planter, quantized

__all__ = ["FAULTS", "Planted", "Planter", "quantized"]

FAULTS: dict[str, Planter] = {
    "saturation": stored.saturation,
    "dead range": stored.dead_range,
    "zero point": stored.zero_point,
    "weight scale": stored.weight_scale,
    "bias": stored.bias,
    "weight outlier": network.weight_outlier,
    "activation outlier": network.activation_outlier,
    "clash": network.clash,
    "thin calibration": network.thin_calibration,
    "preprocessing": network.preprocessing,
}
