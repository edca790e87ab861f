"""Calibration without data: inputs made up, and a twin whose activations have the moments of the training data."""

from .inputs import imagine
from .twin import twin

__all__ = ["imagine", "twin"]
