"""Farrier: optimize models, put them on devices, and see what they really do.

Whatever a command does is a function of the same name here; each is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from farrier_contracts import __version__

if TYPE_CHECKING:
    from .benchmark import bench
    from .flashing import flash
    from .optimization import optimize

# name -> the module that holds it. No module is called like a function: importing it would hide the function.
FUNCTIONS: dict[str, str] = {
    "optimize": "farrier.optimization",
    "bench": "farrier.benchmark",
    "flash": "farrier.flashing",
}

__all__ = ["__version__", "bench", "flash", "optimize"]


def __getattr__(name: str) -> Any:
    """Import a function on first use (PEP 562)."""
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'farrier' has no attribute {name!r}")
    return getattr(importlib.import_module(FUNCTIONS[name]), name)
