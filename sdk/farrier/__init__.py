"""Farrier: optimize models, put them on devices, and see what they really do.

Whatever a command does is a function of the same name here; each is imported on first use. Command groups are
modules: `farrier.bundle.build`, `farrier.repo.publish`, `farrier.fleet.rollout`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from farrier_contracts import __version__

if TYPE_CHECKING:
    from .benchmark import bench
    from .catalogue import targets
    from .checking import check
    from .collector import collect
    from .comparison import compare
    from .distilling import distill
    from .flashing import flash
    from .optimization import optimize
    from .pruning import prune
    from .showcase import demo
    from .staircases import staircase
    from .web import dashboard

# name -> the module that holds it. No module is called like a function: importing it would hide the function.
FUNCTIONS: dict[str, str] = {
    "targets": "farrier.catalogue",
    "check": "farrier.checking",
    "optimize": "farrier.optimization",
    "prune": "farrier.pruning",
    "bench": "farrier.benchmark",
    "staircase": "farrier.staircases",
    "compare": "farrier.comparison",
    "distill": "farrier.distilling",
    "flash": "farrier.flashing",
    "collect": "farrier.collector",
    "dashboard": "farrier.web",
    "demo": "farrier.showcase",
}

__all__ = [
    "__version__",
    "bench",
    "check",
    "collect",
    "compare",
    "dashboard",
    "demo",
    "distill",
    "flash",
    "optimize",
    "prune",
    "staircase",
    "targets",
]


def __getattr__(name: str) -> Any:
    """Import a function on first use (PEP 562)."""
    if name not in FUNCTIONS:
        raise AttributeError(f"module 'farrier' has no attribute {name!r}")
    return getattr(importlib.import_module(FUNCTIONS[name]), name)
