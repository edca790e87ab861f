"""Two models side by side: where they differ, which layer makes the difference, why, and what to do."""

from __future__ import annotations

from .causes import Cure, Finding
from .document import CompareSettings, DropReport, drop_report, evenly
from .probe import decibels

__all__ = ["CompareSettings", "Cure", "DropReport", "Finding", "decibels", "drop_report", "evenly"]
