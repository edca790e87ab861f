"""What a student learns from its teachers, as an objective of the training loop."""

from .objective import Distillation, Reading, Weights
from .teachers import Teachers

__all__ = ["Distillation", "Reading", "Teachers", "Weights"]
