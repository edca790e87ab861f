"""Is this calibration data what the network was trained for? Asked before quantizing, answered without labels."""

from __future__ import annotations

from .check import CheckSettings, Fault, check

__all__ = ["CheckSettings", "Fault", "check"]
