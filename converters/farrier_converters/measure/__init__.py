"""Measurement: each artifact in a process of its own, timed in interleaved rounds, evaluated in batches."""

from __future__ import annotations

from .child import Child, ChildSettings, EngineFailure
from .evaluate import evaluate, evaluation_batch, outputs_of, record, takes_batch
from .faithful import faithful, own_arithmetic
from .latency import Latency, LatencySettings, measure

__all__ = [
    "Child",
    "ChildSettings",
    "EngineFailure",
    "Latency",
    "LatencySettings",
    "evaluate",
    "evaluation_batch",
    "faithful",
    "measure",
    "outputs_of",
    "own_arithmetic",
    "record",
    "takes_batch",
]
