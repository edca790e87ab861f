"""Flashing: the agent onto a device, over SSH, offline, and safely again and again."""

from __future__ import annotations

from .flow import BIRTH_LIMIT_S, Flashed, Step, flash
from .plan import ENGINES, SERVICES

__all__ = ["BIRTH_LIMIT_S", "ENGINES", "SERVICES", "Flashed", "Step", "flash"]
