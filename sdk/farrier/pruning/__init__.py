"""Pruning as a workflow: a model in, a smaller and faster one out, timed beside it, with a report."""

from __future__ import annotations

from .groups import groups
from .result import Figures, Pruning
from .run import prune

__all__ = ["Figures", "Pruning", "groups", "prune"]
