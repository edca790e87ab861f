"""Optimization: from a model and a budget to a folder with a bundle and a report."""

from __future__ import annotations

from .job import Settings
from .result import Entry, Result
from .run import optimize
from .trial import TrialSettings

__all__ = ["Entry", "Result", "Settings", "TrialSettings", "optimize"]
