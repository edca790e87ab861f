"""Checking: what will run where on a target, and why not, before anything is built."""

from __future__ import annotations

from .result import Check
from .run import check

__all__ = ["Check", "check"]
