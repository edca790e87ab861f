"""Bundles on the workstation: built from an artifact, looked at, checked, compared."""

from __future__ import annotations

from farrier_contracts.bundle import verify

from .build import BuildSettings, build
from .compare import Difference, diff, inspect

__all__ = ["BuildSettings", "Difference", "build", "diff", "inspect", "verify"]
