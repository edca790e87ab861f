"""A fleet of devices: its file, what its devices run, and what they should run."""

from .config import Fleet, init_fleet, load_fleet
from .metrics import Performance, curves, performance, presence
from .rollouts import Progress, progress, rollback, rollout, watch

__all__ = [
    "Fleet",
    "Performance",
    "Progress",
    "curves",
    "init_fleet",
    "load_fleet",
    "performance",
    "presence",
    "progress",
    "rollback",
    "rollout",
    "watch",
]
