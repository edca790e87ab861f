"""The training loop: any objective, hooks around its steps, and no diverged model kept."""

from .history import History
from .loop import Progress, fit
from .settings import FitSettings

__all__ = ["FitSettings", "History", "Progress", "fit"]
