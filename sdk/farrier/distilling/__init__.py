"""Distillation as a workflow: a student given or made, taught, judged beside its teacher, and written with a report."""

from __future__ import annotations

from .result import Result, Scored
from .run import distill

__all__ = ["Result", "Scored", "distill"]
