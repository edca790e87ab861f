"""The whole loop on one machine: optimize, sign, roll out, infer, watch."""

from __future__ import annotations

from .play import Settings, Summary, demo

__all__ = ["Settings", "Summary", "demo"]
