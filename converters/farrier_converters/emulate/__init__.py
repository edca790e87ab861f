"""A target's integer arithmetic on the host: what a quantized graph will answer on another processor."""

from __future__ import annotations

from .emulator import Emulator
from .recast import fits, recast
from .saturation import Saturation

__all__ = ["Emulator", "Saturation", "fits", "recast"]
