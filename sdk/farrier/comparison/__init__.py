"""Comparison: two models output by output and layer by layer, why they differ, and the cure."""

from __future__ import annotations

from .result import Applied, Comparison, Judged
from .run import compare

__all__ = ["Applied", "Comparison", "Judged", "compare"]
