"""Why a layer loses: one pure rule per cause, on numbers that were measured elsewhere."""

from __future__ import annotations

from .activations import activation_cause
from .biases import bias_cause
from .joins import join_cause
from .model import ActivationFacts, BiasFacts, Cure, Finding, JoinFacts, Place, WeightFacts
from .weights import weight_cause
from .whole import whole_cause

__all__ = [
    "ActivationFacts",
    "BiasFacts",
    "Cure",
    "Finding",
    "JoinFacts",
    "Place",
    "WeightFacts",
    "activation_cause",
    "bias_cause",
    "join_cause",
    "weight_cause",
    "whole_cause",
]
